"""results.json holds what its types say, and docs/results.md says what they hold."""

import json
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, get_args, get_origin

import pytest
import tiny_job
from tiny_models import save_tiny_model

from mwanda.errors import CalibrationError, InputError, RecordError
from mwanda.job.document import document, kinds
from mwanda.job.record import OUTCOME, Results
from mwanda.job.results import SCHEMA, read_results, write_results
from mwanda.job.typed import Key, entries, problems
from mwanda.pruner import Pruner
from mwanda.system.conf import CONF


class Part(TypedDict):
    """A part."""

    count: Annotated[int, Key("how many")]


class Whole(TypedDict):
    """Every kind of key."""

    text: Annotated[str, Key("text")]
    share: Annotated[float | None, Key("share")]
    parts: Annotated[list[Part], Key("parts")]
    named: NotRequired[Annotated[dict[str, Part], Key("parts by name")]]
    perhaps: Annotated[Part, Key("a part", empty="there is none")]
    free: Annotated[dict[str, Any], Key("anything")]


WHOLE = {"text": "", "share": 0.5, "parts": [{"count": 1}], "perhaps": {}, "free": {"x": [1, None]}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("bloom", tmp_path_factory.mktemp("bloom"))


def test_what_is_as_the_types_say_has_no_problems() -> None:
    for changes in ({}, {"share": None}, {"named": {"a": {"count": 2}}}, {"perhaps": {"count": 1}}, {"parts": []}):
        assert list(problems({**WHOLE, **changes}, Whole)) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"text": None}, ".text: None is not text"),
        ({"share": 1}, ".share: 1 is not number or null"),
        ({"parts": [{"count": 1}, {"count": True}]}, ".parts[1].count: True is not whole number"),
        ({"parts": {"count": 1}}, ".parts: {'count': 1} is not list of [Part](#part)"),
        ({"parts": [3]}, ".parts[0]: 3 is not [Part](#part)"),
        ({"named": {"a": {}}}, ".named.a.count: is missing"),
        ({"other": 1}, ".other: is not documented"),
    ],
)
def test_what_is_not_is_named_with_its_place(changes: dict[str, Any], line: str) -> None:
    assert list(problems({**WHOLE, **changes}, Whole)) == [line]


def test_a_key_that_is_missing_is_named() -> None:
    assert list(problems({key: value for key, value in WHOLE.items() if key != "perhaps"}, Whole)) == [
        ".perhaps: is missing"
    ]


# ---- what runs leave


@pytest.mark.parametrize(
    "typed",
    [
        (
            "schedule=owl_cwl",
            "inside=full",
            "export=masks",
            "calibration.sampling=proportional",
            "calibration.mix=bloom",
        ),
        ("evaluation=full", "evaluation.tasks=[parallel_cloze]", "evaluation.limit=2", "pattern=2of4"),
        (
            "schedule=owl",
            "schedule.level=matrix",
            "calibration.weights={swh_Latn: 2}",
            "solver=swap",
            "corpus.drop_overlap=true",
        ),
    ],
    ids=["perplexity and inside", "tasks", "weights and matrices"],
)
def test_a_run_leaves_what_the_types_say(model: Path, tmp_path: Path, typed: tuple[str, ...]) -> None:
    returned = tiny_job.run(model, tmp_path / "run", *typed)
    results = read_results(tmp_path / "run")
    assert results == json.loads(json.dumps(returned))
    assert list(problems(results, Results)) == []
    absent = {each.name for each in entries(Results)} - results.keys()
    assert absent == {"error"} | (set() if "inside=full" in typed else {"inside", "export"})


def test_a_run_without_evaluation_leaves_what_the_types_say(model: Path, tmp_path: Path) -> None:
    tiny_job.run_spec(tiny_job.spec(tmp_path / "run", tiny_job.without_evaluation(model)))
    results = read_results(tmp_path / "run")
    assert results is not None
    assert list(problems(results, Results)) == []
    assert (results["perplexity"], results["tasks"], results["evaluation"]) == ({}, {}, {})


def test_a_failed_run_leaves_what_the_types_say(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise CalibrationError("inputs are not finite")

    monkeypatch.setattr(Pruner, "prune", fail)
    with pytest.raises(CalibrationError):
        tiny_job.run(model, tmp_path / "run")
    results = read_results(tmp_path / "run")
    assert results is not None
    assert list(problems(results, Results)) == []
    assert (results["status"], results["error"]["type"]) == ("failed", "CalibrationError")


# ---- what is read


def test_there_may_be_no_record_and_that_of_another_program_is_refused(tmp_path: Path) -> None:
    assert read_results(tmp_path) is None
    write_results(tmp_path, {"schema": SCHEMA, "status": "failed"})
    assert read_results(tmp_path) == {"schema": SCHEMA, "status": "failed"}
    for content in ('{"score": 1}', "[]", '{"schema": null}'):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(InputError, match=r"results\.json: is no record of a run \(mwanda\.results/1\); move it"):
            read_results(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(RecordError, match=r"results\.json"):
        read_results(tmp_path)


def test_a_record_of_an_older_version_is_read_as_one_of_today(model: Path, tmp_path: Path) -> None:
    today = tiny_job.run(model, tmp_path / "run")
    old = json.loads(json.dumps(today))
    del old["solver"], old["calibration"]["weights"], old["calibration"]["overlap"]
    write_results(tmp_path / "old", old)
    assert list(problems(old, Results)) == []
    assert read_results(tmp_path / "old") == read_results(tmp_path / "run")


# ---- what is said


def test_the_document_is_made_from_the_types() -> None:
    written = (CONF.parent / "docs" / "results.md").read_text(encoding="utf-8")
    assert written == document(), "python -m mwanda.job.document > docs/results.md"


def test_every_key_says_what_its_type_asks_for() -> None:
    wrong = []
    for kind in kinds(Results):
        for each in entries(kind):
            key, optional = each.key, type(None) in get_args(each.type)
            mapping = dict in map(get_origin, (each.type, *get_args(each.type)))
            said = (key.meaning != "", key.absent != "", key.null != "", key.by != "")
            if said != (True, not each.required, optional, mapping):
                wrong.append(f"{kind.__name__}.{each.name}")
    assert wrong == []


def test_sections_that_say_what_came_out_are_not_those_of_time_and_place() -> None:
    others = {"timing", "environment", "evaluation", "memory", "artifacts", "export", "started", "finished", "run_id"}
    assert {"model", "criterion", "sparsity", "calibration", "schedule", "perplexity", "tasks"} < set(OUTCOME)
    assert not others & set(OUTCOME)
