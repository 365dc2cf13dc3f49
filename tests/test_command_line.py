"""Bad input costs one line: it names the key and the value, nothing is loaded and no folder is made."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mwanda import command_line
from mwanda.command_line import check, options_first
from mwanda.config import compose
from mwanda.config.identity import RunSpec
from mwanda.errors import ConfigurationError, InputError
from mwanda.models import gemma, source
from mwanda.sweep import local, plan, worker


RUN = Path(__file__).parent.parent / "run.py"

# What is typed, what the line starts with after `error: `, and what it must hold besides.
UNKNOWN_KEYS = [
    (["sparsty=0.6"], "sparsty=0.6: ", "choices: sparsity,"),
    (["+sparsty=0.6"], "sparsty=0.6: ", "choices: sparsity,"),
    (["~sparsty"], "sparsty=: ", "choices: sparsity,"),
    (["criterion.varianc_weight=1"], "criterion.varianc_weight=1: ", "in 'criterion'; choices: variance_weight,"),
    (["~criterion.varianc_weight"], "criterion.varianc_weight=: ", "in 'criterion'; choices: variance_weight,"),
    (["critrion.variance_weight=1"], "critrion.variance_weight=1: ", "no key 'critrion'; choices: criterion,"),
    (["model.path.folder=x"], "model.path.folder=x: ", "no key 'folder' in 'model.path'; choices: none"),
    (["sparsty=0.6", "model=blom"], "", "blom"),
    (["hydra.run.dirr=x"], "hydra.run.dirr=x: ", "choices: dir"),
    (["evaluation=none", "evaluation.corpus=c4"], "evaluation.corpus=c4: ", "no key 'corpus' in 'evaluation'"),
]
UNKNOWN_CHOICES = [
    (["model=blom"], "model=blom: ", "choices: bloom, "),
    (["langs=flores3"], "langs=flores3: ", "choices: flores30, "),
    (
        ["langs=mwanda15"],
        "langs=mwanda15: ",
        "https://github.com/RochelleChoenni/M-Wanda; give them as langs=[CODE,CODE,…]",
    ),
    (["--multirun", "langs=flores30,mwanda15"], "langs=mwanda15: ", "https://github.com/RochelleChoenni/M-Wanda; "),
    (
        ["calibration.languages=mwanda15"],
        "calibration.languages=mwanda15: ",
        "https://github.com/RochelleChoenni/M-Wanda; give them as calibration.languages=[CODE,CODE,…]",
    ),
    (["corpus=embeded"], "corpus=embeded: ", "choices: embedded, "),
    (["calibration=smal"], "calibration=smal: ", "choices: small, english, large, paper, proportional, target"),
    (["criterion=mwnda"], "criterion=mwnda: ", "choices: mwanda, wanda, "),
    (["schedule=ow"], "schedule=ow: ", "choices: owl, "),
    (["pattern=2of8"], "pattern=2of8: ", "choices: 4of8, 2of4, unstructured"),
    (["pruner=arival"], "pruner=arival: ", "choices: arrival, block, oneshot"),
    (["evaluation=perplex"], "evaluation=perplex: ", "choices: perplexity, full, harness, none"),
    (["tracking=wand"], "tracking=wand: ", "choices: wandb, none"),
    (["export=hff"], "export=hff: ", "choices: hf, masks, none"),
    (["model=null"], "model=null: ", "must name one choice; choices: nllb, aya23_8b, bloom, "),
    (["criterion=[wanda,mwanda]"], "criterion=[wanda,mwanda]: ", "must name one choice; choices: mwanda, wanda, "),
    (["model={path: x}"], "model={path: x}: ", "must name one choice; choices: aya23_8b, bloom, "),
    (["+model=bloom"], "model=bloom: ", "write model=bloom"),
    (["evaluation.corpus=c5"], "evaluation.corpus=c5: ", "choices: c4, embedded, flores_plus, local"),
]
VALUES = [
    (["sparsity='0.5\n0.6'"], "sparsity=0.5 0.6: ", "number"),
    (["sparsity=${missing}"], "sparsity=${missing}: ", "'missing'"),
    (["calibration.sequences=5"], "calibration.sequences=5: ", "number of languages, 30"),
    (["corpus=local"], "corpus.path=???: ", "corpus.path=…"),
    (["corpus=local", "corpus.path=/no/such"], "corpus.path=/no/such: ", "no such folder"),
    (["evaluation.corpus=local"], "evaluation.corpus.path=???: ", "evaluation.corpus.path=…"),
    (["evaluation.corpus={choice: local, path: /no/such}"], "evaluation.corpus.path=/no/such: ", "no such folder"),
    (["evaluation.corpus={choice: c4, document: 5}"], "evaluation.corpus.document=5: ", "choices: documents,"),
    (["~sparsity"], "sparsity=(nothing): ", "must be given"),
]
LANGUAGES = [
    (["langs=[eng_Latin]"], "langs.codes=eng_Latin: ", "choices: eng_Latn"),
    (["langs=[zho_Hans]"], "langs.codes=zho_Hans: ", "cmn_Hans"),
    (["langs=[eng_Latn, deu_Latn, eng_Latn]"], "langs.codes=eng_Latn: ", "twice"),
    (["langs=[]"], "langs.codes=[]: ", "at least one language"),
    (["langs=[eng_Latn"], "langs=[eng_Latn: ", "brackets"),
    (["+langs=[eng_Latn]"], "langs=[eng_Latn]: ", "choices: bloom46, "),
    (["--multirun", "langs=flores30,[deu_Latn]"], "langs=flores30,[deu_Latn]: ", "not both"),
    (["--multirun", "langs=[deu_Latn],flores30"], "langs=[deu_Latn],flores30: ", "not both"),
]
SWEEPS = [
    (["sparsity=0.3,0.5"], "sparsity=0.3,0.5: ", "--multirun"),
    (["criterion=wanda,mwanda"], "criterion=wanda,mwanda: ", "--multirun"),
    (["langs=[eng_Latn],[deu_Latn]"], "langs.codes=[eng_Latn],[deu_Latn]: ", "--multirun"),
    (["--multirun", "sparsity=0.5,2"], "sparsity=2.0: ", "below 1"),
    (["-m", "criterion=wanda,manda"], "criterion=manda: ", "choices: mwanda,"),
    (["-m", "langs=[eng_Latn],[deu_Latin]"], "langs.codes=deu_Latin: ", "choices: deu_Latn"),
]
CONFLICTS = [
    (["pattern=4of8", "schedule=owl"], "schedule=owl: ", "choices: uniform"),
    (["pattern=2of4", "sparsity=0.6"], "sparsity=0.6: ", "pattern=2of4 always removes 0.5"),
]
SYNTAX = [
    (["sparsity"], "sparsity: ", "KEY=VALUE"),
    (["=0.5"], "=0.5: ", "KEY=VALUE"),
    (["sparsity==0.5"], "sparsity==0.5: ", "KEY=VALUE"),
    (["name='a"], "name='a: ", "quotes"),
    (["--sparsity=0.5"], "--sparsity=0.5: ", "KEY=VALUE"),
    (["--sparsity", "0.5"], "--sparsity: ", "KEY=VALUE"),
    (["--config-dir=/no/such"], "--config-dir=/no/such: ", "no such folder"),
]


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Work in an empty folder beside one with text, and let nobody load a model."""

    def load(*_: object) -> None:
        raise AssertionError("a model is loaded")

    for one in (source.PretrainedModel, gemma.PackagedGemma):
        for method in ("load", "load_tokenizer", "load_config"):
            monkeypatch.setattr(one, method, load)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "eng_Latn.txt").write_text("One sentence.\nAnother one.\n")
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def start(monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]) -> list[list[str]]:
    """Return the arguments that Hydra was started with, each time that it was started."""
    started: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    command_line.start(lambda: started.append(sys.argv[1:]))
    return started


def run_here(monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]) -> list[RunSpec]:
    """Return the runs that were started in this process."""
    started: list[RunSpec] = []
    monkeypatch.setattr(worker, "run", started.append)
    with pytest.raises(SystemExit) as end:
        start(monkeypatch, arguments)
    assert end.value.code == 0
    return started


@pytest.mark.parametrize(
    ("arguments", "opening", "inside"),
    [*UNKNOWN_KEYS, *UNKNOWN_CHOICES, *VALUES, *LANGUAGES, *SWEEPS, *CONFLICTS, *SYNTAX],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    empty_folder: Path,
    arguments: list[str],
    opening: str,
    inside: str,
) -> None:
    with pytest.raises(SystemExit) as end:
        start(monkeypatch, arguments)
    written = capsys.readouterr()
    assert end.value.code == 2
    assert written.out == ""
    assert written.err.count("\n") == 1
    assert written.err.startswith(f"error: {opening}")
    assert inside in written.err
    assert not list(empty_folder.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sparsity=0"],
        ["langs=[eng_Latn, swh_Latn]"],
        ["pattern=2of4", "criterion=magnitude"],
        ["corpus=local", "corpus.path=../texts", "langs=[eng_Latn]"],
        ["evaluation.corpus={choice: local, path: ../texts}", "langs=[eng_Latn]"],
        ["evaluation.corpus=c4", "~criterion.variance_weight"],
    ],
    ids=" ".join,
)
def test_good_input_starts_the_job_once(
    monkeypatch: pytest.MonkeyPatch, empty_folder: Path, arguments: list[str]
) -> None:
    (spec,) = run_here(monkeypatch, arguments)
    assert spec == replace(compose.run_spec(command_line.with_inline_languages(arguments)), **places(spec))
    assert not list(empty_folder.iterdir())


def places(spec: RunSpec) -> dict[str, Any]:
    """Return what of a run depends on the time at which it was typed."""
    return {name: getattr(spec, name) for name in ("config", "settings", "folder")}


@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [
        (["--multirun", "langs=[eng_Latn],[deu_Latn, swh_Latn]", "criterion=wanda,ria"], 4),
        (["-m", "sparsity=range(0.1,0.3,0.1)", "rerun=failed", "sweep.parallel=2"], 2),
        (["+experiment=schedules"], 8),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_sweep_on_this_machine_is_not_left_to_hydra(
    monkeypatch: pytest.MonkeyPatch, empty_folder: Path, arguments: list[str], jobs: int
) -> None:
    asked: list[plan.Plan] = []

    def go(plan: plan.Plan, rerun: str, parallel: int, *, fail_fast: bool) -> int:
        asked.append(plan)
        assert (f"rerun={rerun}" in arguments) == (rerun != "unfinished")
        assert (f"sweep.parallel={parallel}" in arguments) == (parallel != 1)
        assert not fail_fast
        return 1

    monkeypatch.setattr(local, "go", go)
    with pytest.raises(SystemExit) as end:
        start(monkeypatch, arguments)
    assert end.value.code == 1
    assert [len(plan.current) for plan in asked] == [jobs]
    assert not list(empty_folder.iterdir())


def test_a_sweep_of_another_mode_than_run_does_one_after_the_other_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, empty_folder: Path
) -> None:
    specs = run_here(monkeypatch, ["-m", "mode=inspect", "model=bloom,bloom_1b7"])
    assert [spec.choices["model"] for spec in specs] == ["bloom", "bloom_1b7"]
    assert not list(empty_folder.iterdir())


@pytest.mark.parametrize("flag", ["--help", "--hydra-help", "--version", "--cfg=job", "-c", "--info"])
def test_who_only_wants_to_see_something_is_not_checked(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    assert start(monkeypatch, [flag, "sparsity=2"]) == [[flag, "sparsity=2"]]


def test_choices_of_another_folder_can_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "mine, [and others']"
    choice = folder / "criterion" / "tuned.yaml"
    choice.parent.mkdir(parents=True)
    choice.write_text("_target_: mwanda.criteria.ria.RIA\nexponent: 0.25\n")
    (spec,) = run_here(monkeypatch, ["--config-dir", str(folder), "criterion=tuned"])
    assert spec.config["criterion"] == {"_target_": "mwanda.criteria.ria.RIA", "exponent": 0.25}


def test_what_only_hydra_does_around_a_run_is_left_to_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["hydra.run.dir=elsewhere", "evaluation.corpus={choice: c4, documents: 3}"]
    assert start(monkeypatch, arguments) == [
        ["hydra.run.dir=elsewhere", "corpus@evaluation.corpus=c4", "evaluation.corpus.documents=3"]
    ]


def test_another_main_configuration_is_left_to_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--config-name=mine", "a_key_of_mine=1"]
    assert start(monkeypatch, arguments) == [arguments]


def test_composing_gives_plain_values_with_interpolations_resolved() -> None:
    config = compose.compose(["seed=7", "sparsity=0.25", "criterion=ria", "schedule=owl"])
    assert config["calibration"]["seed"] == 7
    assert config["name"] == "ria-owl-0.25"
    assert "hydra" not in config


def test_composing_refuses_what_checking_refuses() -> None:
    with pytest.raises(ConfigurationError, match=r"^criterion=manda: there is no such choice; choices: mwanda, "):
        compose.compose(["criterion=manda"])


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["langs=[eng_Latn,deu_Latn]"], ["langs=inline", "langs.codes=[eng_Latn,deu_Latn]"]),
        (["langs=[ eng_Latn , deu_Latn ]"], ["langs=inline", "langs.codes=[ eng_Latn , deu_Latn ]"]),
        (["langs=[a_Latn],[b_Latn, c_Latn]"], ["langs=inline", "langs.codes=[a_Latn],[b_Latn, c_Latn]"]),
        (["langs=[a_Latn] , [b_Latn]"], ["langs=inline", "langs.codes=[a_Latn] , [b_Latn]"]),
        (["langs=[]"], ["langs=inline", "langs.codes=[]"]),
        (["langs=flores30"], ["langs=flores30"]),
        (["langs=flores30,inline"], ["langs=flores30,inline"]),
        (["langs.codes=[eng_Latn]"], ["langs.codes=[eng_Latn]"]),
        (["tracking.tags=[a,b]"], ["tracking.tags=[a,b]"]),
        (["--cfg", "job", "langs"], ["--cfg", "job", "langs"]),
        (["seed=1", "langs=[a_Latn]", "mode=run"], ["seed=1", "langs=inline", "langs.codes=[a_Latn]", "mode=run"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_inline_languages_become_the_choice_inline(typed: list[str], expected: list[str]) -> None:
    assert command_line.with_inline_languages(typed) == expected


@pytest.mark.parametrize("value", ["[a_Latn],flores30", "flores30,[a_Latn]", "[[a_Latn]]", "[a_Latn][b_Latn]"])
def test_a_sweep_mixes_no_lists_with_names(value: str) -> None:
    with pytest.raises(ConfigurationError, match="lists of codes or names of choices, not both"):
        command_line.with_inline_languages([f"langs={value}"])


def run(folder: Path, *arguments: str, search: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PYTHONPATH": str(search)} if search else {})
    return subprocess.run(
        [sys.executable, str(RUN), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["modl=bloom"], "error: modl=bloom: there is no key 'modl'; choices: model, "),
        (["-m", "criterion=manda,wanda"], "error: criterion=manda: there is no such choice; choices: mwanda, "),
    ],
)
def test_the_program_says_it_in_one_line(empty_folder: Path, arguments: list[str], expected: str) -> None:
    done = run(empty_folder, *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(expected)
    assert not list(empty_folder.iterdir())


def test_without_its_package_gemma_says_what_to_install_and_what_works_without(
    empty_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / f"{gemma.PACKAGE}.py").write_text("raise ImportError('not installed')\n")
    output = empty_folder / "output"
    arguments = ["model=gemma3", "langs=[eng_Latn]", "tracking=none", f"output_dir={output}"]
    done = run(empty_folder, *arguments, search=tmp_path)
    assert done.returncode == 2
    *progress, line = done.stderr.splitlines()
    assert not [each for each in progress if "rror" in each or "Traceback" in each]
    assert line.startswith("error: model=gemma3 needs a package: pip install 'mwanda[gemma]'")
    assert "model.path=FOLDER" in line
    assert not output.exists()


@pytest.mark.parametrize(
    ("typed", "ordered"),
    [
        (["a=1", "--multirun", "b=2"], ["--multirun", "a=1", "b=2"]),
        (["a=1", "-m", "b=2", "--config-dir", "/x", "c=3"], ["-m", "--config-dir", "/x", "a=1", "b=2", "c=3"]),
        (["a=1", "--cfg", "job", "b=2"], ["--cfg", "job", "a=1", "b=2"]),
        (["~a", "--multirun", "+b=1"], ["--multirun", "~a", "+b=1"]),
        (["a=1", "--nope", "b=2"], ["--nope", "b=2", "a=1"]),
        (["a=-1"], ["a=-1"]),
        (["--", "a=1"], ["a=1"]),
        ([], []),
    ],
)
def test_settings_and_options_may_be_typed_in_any_order(typed: list[str], ordered: list[str]) -> None:
    assert options_first(typed) == ordered


def test_an_option_between_settings_makes_a_sweep() -> None:
    asked = check(["criterion=wanda", "--multirun", "sparsity=0.3,0.5"])
    assert asked is not None
    assert [spec.settings.sparsity for spec in asked.runs] == [0.3, 0.5]


def test_a_list_that_would_take_minutes_to_read_is_refused_with_the_way_to_give_it() -> None:
    codes = ",".join(f"a{number:x}" for number in range(20_000))
    with pytest.raises(InputError) as caught:
        check(["langs=inline", f"langs.codes=[{codes}]"])
    message = str(caught.value)
    assert message.startswith("langs.codes: 1")
    assert "FOLDER/langs/NAME.yaml and add --config-dir FOLDER" in message
    assert len(message) < 300


def test_a_long_value_is_quoted_by_its_beginning() -> None:
    codes = ["eng_Latn", *(f"{number:05}" for number in range(600))]  # Hydra takes the square of their number
    with pytest.raises(ConfigurationError) as caught:
        check(["langs=inline", f"langs.include=[{','.join(codes)}]", f"langs.exclude=[{','.join(codes)}]"])
    assert len(str(caught.value)) < 1000
