"""Every choice says what it is and how to ask for it, builds, and names the arguments of its class."""

import importlib.util
import re
import shlex
from collections import Counter
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import tiny_job
import yaml
from hydra.utils import get_class
from tiny_models import save_tiny_model

from mwanda import command_line
from mwanda.config import compose, schema
from mwanda.corpora import embedded
from mwanda.errors import MwandaError
from mwanda.job.components import Parts
from mwanda.languages import known, sets
from mwanda.languages.selection import Selection
from mwanda.system import conf


COMMIT = re.compile("[0-9a-f]{40}")
CHOICES = {
    "model": {
        "bloom",
        "bloom_1b7",
        "bloom_7b1",
        "llama3_1b",
        "llama3_8b",
        "aya23_8b",
        "qwen3",
        "xglm",
        "gemma3",
    },
    "langs": {"flores30", "flores200", "xnli15", "xglm30", "bloom46", "udhr", "low_resource", "inline"},
    "corpus": {"embedded", "flores_plus", "c4", "local"},
    "calibration": {"small", "paper", "large"},
    "criterion": {"magnitude", "wanda", "mwanda"},
    "schedule": {"uniform", "owl", "cwl", "owl_cwl"},
    "pattern": {"unstructured", "2of4", "4of8"},
    "pruner": {"arrival", "block", "oneshot"},
    "evaluation": {"perplexity", "harness", "full", "none"},
    "inside": {"none", "full"},
    "tracking": {"wandb", "none"},
    "export": {"none", "hf", "masks"},
    "method": {
        "recommended",
        "recommended_with_updates",
        "wanda",
        "mwanda",
        "owl",
        "atp",
        "dlp",
        "alphapruning",
        "sparsegpt",
    },
    "hydra/launcher": {"slurm", "slurm_cpu", "slurm_gpu", "slurm_gpus"},
}
# What a choice is there to change; every other value is the default of its class.
CHANGED = {
    "model": {"path", "revision"},
    "corpus": {"path", "revision"},
    "calibration": {"sequences", "length", "seed", "sampling", "target", "mix"},
    "pattern": {"keep", "of"},
    "pruner": {"order"},
    "schedule": {"seed"},
}

FILES = sorted(path for path in conf.CONF.rglob("*.yaml") if path.parent != conf.CONF)
COMPONENTS = [path for path in FILES if path.parent.name in schema.GROUPS]
MAIN = conf.CONF / "config.yaml"


def group_of(path: Path) -> str:
    return path.parent.relative_to(conf.CONF).as_posix()


def name_of(path: Path) -> str:
    return f"{group_of(path)}={path.stem}"


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file without Hydra's own of the package that its keys belong to."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[1:] if lines[0] == "# @package _global_" else lines


def bases_of(path: Path) -> list[Path]:
    """Return the files of its group that a file inherits from."""
    defaults = yaml.safe_load(path.read_text(encoding="utf-8")).get("defaults", [])
    return [path.with_name(f"{name}.yaml") for name in defaults if name != "_self_" and path != MAIN]


def own(path: Path) -> dict[str, Any]:
    """Return what a file says itself."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key != "defaults"}


def read(path: Path) -> dict[str, Any]:
    """Return what a file says, with what it inherits."""
    content: dict[str, Any] = {}
    for base in bases_of(path):
        content |= read(base)
    return content | own(path)


def comments_of(path: Path) -> dict[str, str]:
    """Return the comment of each key of a file, with those that it inherits."""
    comments: dict[str, str] = {}
    for base in bases_of(path):
        comments |= comments_of(base)
    lines = re.findall(r"^(\w+):[^#\n]*#\s*(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return comments | {str(key): str(comment) for key, comment in lines}


def literals(annotation: Any) -> set[str]:
    """Return the words that a type allows, where it is made of Literals (or None), as YAML writes them."""
    if get_origin(annotation) is Literal:
        return {str(each).lower() if isinstance(each, bool) else str(each) for each in get_args(annotation)}
    return {word for each in get_args(annotation) for word in literals(each)}


def command_of(path: Path) -> list[str]:
    """Return the arguments of the command in a file's second line."""
    line = lines_of(path)[1]
    start, program, *arguments = shlex.split(line.partition("   (")[0].removeprefix("# "))
    assert (start, program) == ("python", "run.py")
    return arguments


def arguments_of(path: Path) -> dict[str, Field[Any]]:
    """Return the arguments of the class that a file names."""
    target = read(path)["_target_"]
    return {one.name: one for part in schema.parts_of(get_class(target)) for one in fields(part) if one.init}


def types_of(path: Path) -> dict[str, Any]:
    """Return the type of each key that a file may set."""
    if path == MAIN:
        return get_type_hints(schema.Settings)
    if group_of(path) == "langs":
        return get_type_hints(Selection)
    target = read(path)["_target_"]
    parts = schema.parts_of(get_class(target)) if target else []
    return {name: hint for part in parts for name, hint in get_type_hints(part).items()}


def test_a_group_has_the_choices_that_users_are_promised() -> None:
    missing = {group: sorted(CHOICES[group] - set(conf.choices(group))) for group in CHOICES}
    assert missing == {group: [] for group in CHOICES}


def test_every_group_is_known_to_the_schema() -> None:
    assert {group_of(path) for path in FILES} == {*schema.GROUPS, *schema.PRESETS, "langs", "hydra/launcher"}


def test_every_file_opens_with_what_it_is_and_a_command() -> None:
    failures = []
    for path in (*FILES, MAIN):
        first, second, third, *_ = lines_of(path)
        described = re.fullmatch("# .{10,}[.)]|# .*https://[^ ]+|# The main configuration: .*", first)
        if not described or not second.startswith("# python run.py ") or third.startswith("#"):
            failures.append(name_of(path))
    assert failures == []


def test_every_command_names_its_choice() -> None:
    arguments = {name_of(path): command_line.with_inline_languages(command_of(path)) for path in FILES}
    assert [name for name, typed in arguments.items() if name not in typed] == []


def test_every_command_composes_and_builds(tmp_path: Path) -> None:
    installed = importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is not None
    for stem in (*known(), "deu_1996"):
        (tmp_path / f"{stem}.txt").touch()
    failures = []
    for path in (each for each in (*FILES, MAIN) if installed or group_of(each) != "hydra/launcher"):
        typed = [each.replace("FOLDER", str(tmp_path)) for each in command_of(path)]
        try:
            command_line.check(command_line.with_inline_languages(typed))
        except MwandaError as error:
            failures.append(f"{name_of(path)}: {error}")
    assert failures == []


def test_every_file_holds_the_arguments_of_its_class() -> None:
    failures = []
    for path in COMPONENTS:
        node, expected = read(path), ["_target_"]
        if node["_target_"] is not None:
            # The text of the evaluation is chosen with it, but read by the job.
            expected += [*(["corpus"] if group_of(path) == "evaluation" else []), *arguments_of(path)]
        if list(node) != expected:
            failures.append(f"{name_of(path)}: {list(node)}, not {expected}")
    assert failures == []


def test_values_are_the_defaults_of_the_class_unless_they_are_the_point() -> None:
    failures = []
    for path in (path for path in COMPONENTS if read(path)["_target_"]):
        node = read(path)
        for name, argument in arguments_of(path).items():
            default = argument.default_factory() if argument.default_factory is not MISSING else argument.default
            wanted = list(default) if isinstance(default, tuple) else default
            if name not in CHANGED.get(group_of(path), ()) and node[name] != wanted:
                failures.append(f"{name_of(path)}: {name}={node[name]}, not {wanted}")
    assert failures == []


def test_a_file_that_inherits_says_only_what_it_changes() -> None:
    inheriting = {path: bases for path in COMPONENTS if (bases := bases_of(path))}
    repeated = [
        f"{name_of(path)}: {key}"
        for path, bases in inheriting.items()
        for key, value in own(path).items()
        for base in bases
        if read(base).get(key, MISSING) == value
    ]
    assert {group_of(path) for path in inheriting} == {"calibration", "pruner"}
    assert repeated == []


def test_comments_list_the_choices_that_there_are() -> None:
    """Every key that takes one of some words says which, as in `a | b | c`; no comment lists others."""
    failures, checked = [], 0
    for path in (*COMPONENTS, conf.CONF / "langs" / "inline.yaml", MAIN):
        comments, types = comments_of(path), types_of(path)
        for name in read(path):
            choices, comment = literals(types.get(name)), comments.get(name, "")
            listed = re.findall(r"[\w-]+(?: \| [\w-]+)+", comment) or re.findall(r"^[\w-]+", comment)
            found = set(listed[0].split(" | ")) if listed else set()
            if found != choices if choices else len(found) > 1:
                failures.append(f"{name_of(path)}: {name} takes {sorted(choices)}; its comment is {comment!r}")
            checked += bool(choices)
    assert failures == []
    assert checked > 80


def test_what_comes_from_the_hub_is_pinned() -> None:
    nodes = {name_of(path): read(path) for path in COMPONENTS if "revision" in read(path)}
    pinned = {name: bool(COMMIT.fullmatch(node["revision"] or "")) for name, node in nodes.items()}
    assert pinned == {name: "/" in node["path"] for name, node in nodes.items()}
    assert sum(pinned.values()) > 10


def test_a_corpus_refers_to_nothing_outside_its_file() -> None:
    files = {path.stem: path.read_text(encoding="utf-8") for path in (conf.CONF / "corpus").glob("*.yaml")}
    # evaluation.corpus reads the file alone
    assert [name for name, text in files.items() if "${" in text] == []


def test_the_thirty_languages_are_those_of_the_embedded_corpus() -> None:
    assert read(conf.CONF / "langs" / "flores30.yaml")["codes"] == embedded.codes()


METHODS = [path for path in FILES if group_of(path) == "method"]


def test_a_method_chooses_a_criterion_a_solver_and_a_schedule() -> None:
    """All of them, so that it means the same whatever the defaults are."""
    failures = []
    for path in METHODS:
        spec, overridden = (
            compose.run_spec([name_of(path)]),
            yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"],
        )
        chosen = {key.removeprefix("override /"): choice for each in overridden for key, choice in each.items()}
        if chosen.keys() != {"criterion", "solver", "schedule"} or not chosen.items() <= spec.choices.items():
            failures.append(path.stem)
    assert failures == []


def test_a_method_is_the_same_run_as_its_choices_typed_one_by_one() -> None:
    one_word = compose.run_spec(["method=recommended"])
    choices = ["criterion=wanda", "solver=swap", "schedule=fisher"]
    typed = compose.run_spec([*choices, "calibration.unit_tokens=true", "calibration.moment_share=0.5"])
    assert one_word.config_hash == typed.config_hash
    assert one_word.exact_hash == typed.exact_hash


def test_what_is_typed_beside_a_method_stays() -> None:
    spec = compose.run_spec(
        ["method=recommended", "calibration=large", "calibration.unit_tokens=false", "criterion=ria", "solver.rounds=2"]
    )
    assert spec.config["calibration"]["unit_tokens"] is False
    assert spec.config["calibration"]["sequences"] != compose.run_spec([]).config["calibration"]["sequences"]
    assert compose.run_spec(["method=recommended", "calibration=large"]).config["calibration"]["unit_tokens"] is True
    assert spec.choices["criterion"] == "ria"
    assert spec.config["solver"]["rounds"] == 2
    assert spec.choices["schedule"] == "fisher"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("method=recomended", r"method=recomended: there is no such choice; choices: .*recommended"),
        ("+method=wanda", "write method=wanda"),
        ("method=[wanda]", r"method=\[wanda\]: must name one choice; choices: .*alphapruning"),
    ],
)
def test_a_method_that_there_is_not_is_refused(typed: str, message: str) -> None:
    with pytest.raises(MwandaError, match=message):
        command_line.check([typed])


@pytest.mark.parametrize("method", [path.stem for path in METHODS])
def test_every_method_prunes_a_tiny_model(method: str, tmp_path: Path) -> None:
    model = save_tiny_model("llama", tmp_path / "model")
    results = tiny_job.run(model, tmp_path / "run", f"method={method}")
    assert results["sparsity"]["achieved"] == pytest.approx(0.5, abs=0.05)  # rows of 16 weights


def test_a_run_without_arguments_builds_what_the_defaults_name() -> None:
    parts = Parts.of(compose.run_spec([]))
    names = [type(each).__name__ for each in (parts.source, parts.criterion, parts.schedule, parts.pattern)]
    assert names == ["PackagedGemma", "MWanda", "Uniform", "Unstructured"]
    assert len(parts.languages) == 30


@pytest.mark.parametrize(
    ("name", "count"),
    [("flores30", 30), ("flores200", 210), ("xnli15", 15), ("xglm30", 30), ("bloom46", 46), ("udhr", 458)],
)
def test_a_set_has_as_many_languages_as_its_name_says(name: str, count: int) -> None:
    assert len(sets.language_set("langs", name).named()) == count


def test_every_family_of_four_languages_and_every_script_of_three_has_a_set() -> None:
    every = [sets.language_set("langs", name) for name in conf.choices("langs") if name != "inline"]
    families = Counter(language.family for language in known().values())
    scripts = Counter(language.script for language in known().values())
    wanted = {family for family, count in families.items() if count >= 4} - {"Artificial Language"}
    assert wanted <= {family for each in every for family in each.families}
    assert {script for script, count in scripts.items() if count >= 3} <= {
        one for each in every for one in each.scripts
    }


def test_a_set_by_family_or_script_is_a_rule_and_no_list() -> None:
    names = [name for name in conf.choices("langs") if name[:6] in ("family", "script")]
    every = {name: sets.language_set("langs", name) for name in names}
    assert len(every) >= 40
    assert [name for name, chosen in every.items() if chosen.codes or len(chosen.named()) < 3] == []
