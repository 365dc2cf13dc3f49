"""Imports run down only: the floors below are the architecture, and docs/architecture.md draws the same ones."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest


PACKAGE = Path(__file__).parent.parent / "mwanda"
DIAGRAM = PACKAGE.parent / "docs" / "architecture.md"
LONGEST = 400
"""Lines of a module, above which its docstring has to say why."""

# From the top down; a room imports from floors below its own, and from rooms of its own floor without a circle.
FLOORS = (
    ("command_line", "hydra_job", "sbatch", "status", "reproduce", "show", "sync", "dashboard"),
    ("sweep", "comparison"),
    ("job",),
    ("inside", "evaluation"),
    ("pruner",),
    ("export", "config", "tracking", "corpora"),
    ("criteria", "models", "artifacts", "languages"),
    ("schedules", "solvers", "patterns", "system", "calibration"),
    ("statistics", "kernels", "errors"),
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def modules() -> dict[str, Path]:
    """Return every module of the package by its name; a package by its own."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of this package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mwanda"):
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield inside if inside in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("mwanda"))


def room(module: str) -> str:
    """Return the room (a folder, or a module beside them) that a module is in."""
    return module.split(".")[1] if "." in module else module


ARROWS = {(name, other) for name, path in MODULES.items() for other in imported(path) if other != "mwanda"}
"""Which module imports which; the package itself holds nothing but the version."""


def test_every_room_stands_on_a_floor() -> None:
    assert {room(name) for name in MODULES if name != "mwanda"} == FLOOR.keys()


def test_no_import_runs_upwards() -> None:
    upwards = [f"{name} imports {other}" for name, other in sorted(ARROWS) if FLOOR[room(name)] > FLOOR[room(other)]]
    assert upwards == []


@pytest.mark.parametrize("level", ["rooms", "modules"])
def test_there_is_no_circle(level: str) -> None:
    name_of = room if level == "rooms" else str
    below: dict[str, set[str]] = {}
    for name, other in ARROWS:
        # A package's own file gathers names of its modules; that they import each other's package is no circle.
        if name_of(name) != name_of(other) and not (level == "modules" and MODULES[name].name == "__init__.py"):
            below.setdefault(name_of(name), set()).add(name_of(other))
    circles, done = [], set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            circles.append(" → ".join((*way[way.index(name) :], name)))
        elif name not in done:
            for other in sorted(below.get(name, ())):
                visit(other, (*way, name))
            done.add(name)

    for name in sorted(below):
        visit(name, ())
    assert circles == []


def test_no_module_is_long_without_a_reason() -> None:
    long = []
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        doc = ast.get_docstring(ast.parse(text)) or ""
        if text.count("\n") > LONGEST and "lines because" not in doc:
            long.append(name)
    assert long == []


def test_the_diagram_draws_these_floors() -> None:
    drawn = re.search(r"```mermaid\n(.*?)```", DIAGRAM.read_text(encoding="utf-8"), re.DOTALL)
    assert drawn is not None
    floors = re.findall(r'^ *subgraph \w+\["[^"]*"\]\n(.*?)^ *end$', drawn[1], re.DOTALL | re.MULTILINE)
    assert [tuple(line.strip() for line in floor.splitlines()) for floor in floors] == list(FLOORS)
