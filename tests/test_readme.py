"""What the README tells people to type works."""

import re
import shlex
from pathlib import Path

import pytest
import tiny_job
from synthetic_results import results, save
from tiny_models import save_tiny_model

from mwanda import command_line, sbatch
from mwanda.comparison import __main__ as comparison
from mwanda.corpora.embedded import all_sentences
from mwanda.job.run import run


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
LINES = [line.split("   #")[0].strip() for block in BLOCKS for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("python run.py")]
SMALL = ["calibration.sequences=30", "calibration.length=16", "evaluation.sentences=1", "tracking=none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both a tiny model and a local corpus, as `FOLDER` stands for either."""
    made = tmp_path_factory.mktemp("readme")
    save_tiny_model("bloom", made)
    (made / "eng_Latn.txt").write_text("\n".join(all_sentences("eng_Latn")), encoding="utf-8")
    (made / "deu_1996.txt").write_text("\n".join(all_sentences("deu_Latn")), encoding="utf-8")
    return made


def test_there_are_commands_to_test() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", [command for command in COMMANDS if "--cfg" not in command])
def test_a_command_of_the_readme_runs(command: str, folder: Path, tmp_path: Path) -> None:
    """As it stands it is accepted; on a tiny model, its first job runs."""
    typed = [part.replace("FOLDER", str(folder)) for part in shlex.split(command)[2:]]
    arguments = command_line.with_inline_languages(typed)
    command_line.check(arguments)
    first = [re.sub(r"=([^\[{,]*),.*", r"=\1", part) for part in arguments if part != "--multirun"]
    first = [part for part in first if not part.startswith("model")]
    results = run(tiny_job.spec(tmp_path / "run", [*first, "model=bloom", f"model.path={folder}", *SMALL]))
    assert (results is None) == any(f"mode={mode}" in command for mode in ("inspect", "prepare"))
    assert results is None or results["status"] == "complete"


@pytest.mark.parametrize("command", [line for line in LINES if line.startswith("python -m mwanda.sbatch")])
def test_a_job_array_of_the_readme_is_written(command: str, tmp_path: Path) -> None:

    assert sbatch.main([*shlex.split(command)[3:], f"--output={tmp_path / 'swept'}", "--dry-run"]) == 0
    assert (tmp_path / "swept" / "array.sh").is_file()


def test_the_comparison_of_the_readme_runs(tmp_path: Path) -> None:
    (command,) = [line for line in LINES if line.startswith("python -m mwanda.comparison")]
    save(tmp_path / "run", results())
    comparison.main([part.replace("FOLDER", str(tmp_path)) for part in shlex.split(command)[3:]])
    assert (tmp_path / "comparison" / "report.md").is_file()


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {line.split()[1] for line in LINES if line.startswith("make ")}
    assert targets == {"run", "test"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_every_choice_that_the_table_of_groups_names_exists() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", README, flags=re.MULTILINE)
    assert len(rows) == 14
    for group, cell in rows:
        shipped = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")} - {"inline"}
        shipped = {name for name in shipped if not name.startswith(("family_", "script_"))}
        assert shipped == set(re.findall(r"`(\w+)`", cell)), group
