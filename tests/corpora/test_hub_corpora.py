"""Corpora from the hub: streamed, pinned, kept for when the hub is off, and refused in one line."""

import gzip
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hub_server import Client, HubServer, Steps

from mwanda.corpora.c4 import C4
from mwanda.errors import CorpusError
from mwanda.languages import Language


MEMBER, STRANGER, INVALID = "hf_memberSecret", "hf_strangerSecret", "hf_invalidSecret"
READ_CORPUS = """
from mwanda.corpora.c4 import C4
from mwanda.corpora.flores_plus import FloresPlus
from mwanda.languages import find


def answer(corpus, path, language, splits=("calibration",), revision=None, **knobs):
    made = {"flores_plus": FloresPlus, "c4": C4}[corpus](path, revision, **knobs)
    return {split: list(made.sentences(find([language])[0], split)) for split in splits}
"""
BOTH = ("calibration", "evaluation")


@dataclass(frozen=True)
class Session:
    """What clients of a hub were answered: while it was there, and after."""

    commits: dict[str, str]
    hub: HubServer
    home: Path
    answers: dict[str, dict[str, dict[str, Any]]]
    printed: str

    def error(self, time: str, step: str) -> str:
        """Return the error of a step, which is one line."""
        answer = self.answers[time][step]
        assert answer["type"] == "CorpusError"
        message: str = answer["error"]
        assert "\n" not in message
        return message


def write_card(folder: Path, configurations: Mapping[str, Mapping[str, str]]) -> None:
    """Write a dataset card that names the data files of each configuration and split."""
    lines = ["---", "license: cc-by-sa-4.0", "configs:"]
    for name, splits in configurations.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, files in splits.items():
            lines += [f"  - split: {split}", f"    path: {files}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", "", "# A dataset", ""]), encoding="utf-8")


def write_flores(folder: Path, mark: str, splits: Sequence[str] = ("dev", "devtest"), column: str = "text") -> Path:
    """Write parquet files as FLORES+ has them."""
    card: dict[str, dict[str, str]] = {}
    for code in ("eng_Latn", "swh_Latn"):
        card[code] = {split: f"{split}/{code}.parquet" for split in splits}
        for split, file in card[code].items():
            (folder / split).mkdir(parents=True, exist_ok=True)
            texts = [f"{mark} {code} {split} 0", None, "  ", f" {mark} {code} {split} 1\u2028"]
            table = pyarrow.table({"id": range(len(texts)), "iso_639_3": [code[:3]] * len(texts), column: texts})
            pyarrow.parquet.write_table(table, folder / file)
    write_card(folder, card)
    return folder


def write_c4(folder: Path, documents: int = 6) -> Path:
    """Write compressed JSON lines as the multilingual part of `allenai/c4` has them."""
    (folder / "multilingual").mkdir(parents=True)
    card: dict[str, dict[str, str]] = {}
    for code in ("en", "sw"):
        card[code] = {}
        for split, stem in (("train", f"c4-{code}"), ("validation", f"c4-{code}-validation")):
            card[code][split] = f"multilingual/{stem}.tfrecord-*.json.gz"
            rows = [{"text": f"{code} {split}\n{number}", "timestamp": "", "url": ""} for number in range(documents)]
            packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
            (folder / "multilingual" / f"{stem}.tfrecord-00000-of-00001.json.gz").write_bytes(packed)
    write_card(folder, card)
    return folder


def tear(folder: Path) -> Path:
    """Cut the end off every compressed file, as a transfer that breaks off does."""
    for file in folder.rglob("*.gz"):
        file.write_bytes(file.read_bytes()[:-20])
    return folder


def fill(hub: HubServer, folder: Path) -> dict[str, str]:
    """Push the repositories and return their commits."""
    old, new = write_flores(folder / "old", "old"), write_flores(folder / "new", "new")
    commits = {"pinned": hub.push("dataset", "org/pinned", old)}
    hub.push("dataset", "org/pinned", new)
    hub.push("dataset", "org/flores", new)
    hub.push("dataset", "org/gated", new, gated=True)
    hub.push("dataset", "org/half", write_flores(folder / "half", "half", splits=["dev"]))
    hub.push("dataset", "org/column", write_flores(folder / "column", "column", column="sentence"))
    hub.push("dataset", "org/c4", write_c4(folder / "c4"))
    hub.push("dataset", "org/torn", tear(write_c4(folder / "torn", documents=2000)))
    hub.out_of_order.add("org/broken")
    hub.admit(MEMBER, "org/gated")
    hub.admit(STRANGER)
    return commits


def online_steps(folder: Path, commits: Mapping[str, str]) -> Steps:
    """Return what is asked while the hub is there."""
    flores = {"corpus": "flores_plus", "language": "eng_Latn"}
    c4 = {"corpus": "c4", "language": "swh_Latn"}
    return {
        "pinned": {**flores, "path": "org/pinned", "revision": commits["pinned"], "splits": BOTH},
        "flores": {**flores, "path": "org/flores", "splits": BOTH},
        "folder": {**flores, "path": str(folder / "old"), "splits": BOTH},
        "c4": {**c4, "path": "org/c4", "splits": BOTH},
        "c4, three documents": {**c4, "path": "org/c4", "documents": 3},
        "gated, no token": {**flores, "path": "org/gated"},
        "gated, stranger": {**flores, "path": "org/gated", "token": STRANGER},
        "gated, invalid token": {**flores, "path": "org/gated", "token": INVALID},
        "gated, member": {**flores, "path": "org/gated", "token": MEMBER},
        "gated, kept": {**flores, "path": "org/gated"},
        "unknown": {**flores, "path": "org/unknown"},
        "unknown revision": {**flores, "path": "org/flores", "revision": "v7"},
        "unknown language": {**flores, "path": "org/flores", "language": "deu_Latn"},
        "unknown language, folder": {**flores, "path": str(folder / "old"), "language": "deu_Latn"},
        "unknown language, c4": {**c4, "path": "org/c4", "language": "deu_Latn"},
        "no such split": {**flores, "path": "org/half", "splits": ["evaluation"]},
        "no such column": {**flores, "path": "org/column"},
        "torn": {**c4, "path": "org/torn"},
        "broken": {**flores, "path": "org/broken"},
    }


def later_steps(commits: Mapping[str, str]) -> Steps:
    """Return what is asked when the hub is gone."""
    flores = {"corpus": "flores_plus", "language": "eng_Latn"}
    return {
        "pinned": {**flores, "path": "org/pinned", "revision": commits["pinned"], "splits": BOTH},
        "flores": {**flores, "path": "org/flores", "splits": BOTH},
        "c4": {"corpus": "c4", "language": "swh_Latn", "path": "org/c4", "splits": BOTH},
        "unread language": {**flores, "path": "org/flores", "language": "swh_Latn"},
        "unread": {**flores, "path": "org/unread"},
    }


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Ask a hub for everything once, then again after it has gone."""
    folder = tmp_path_factory.mktemp("hub")
    home = folder / "home"
    with ExitStack() as clients:
        with HubServer() as hub:
            online = clients.enter_context(Client(READ_CORPUS, hub.url, home))
            offline = clients.enter_context(Client(READ_CORPUS, hub.url, home, HF_HUB_OFFLINE="1"))
            commits = fill(hub, folder)
            answers = {"online": online.ask(online_steps(folder, commits))}
        answers["unreachable"] = online.ask(later_steps(commits))
        answers["offline"] = offline.ask(later_steps(commits))
        return Session(commits, hub, home, answers, online.printed() + offline.printed())


def flores_texts(mark: str, split: str) -> list[str]:
    """Return the texts of `write_flores` in English that are not empty."""
    return [f"{mark} eng_Latn {split} {number}" for number in range(2)]


@pytest.mark.parametrize(("step", "mark"), [("pinned", "old"), ("flores", "new"), ("folder", "old")])
def test_dev_of_flores_calibrates_and_devtest_evaluates(session: Session, step: str, mark: str) -> None:
    answer = session.answers["online"][step]
    assert answer["calibration"] == flores_texts(mark, "dev")
    assert answer["evaluation"] == flores_texts(mark, "devtest")


def test_train_of_c4_calibrates_and_validation_evaluates_a_document_a_line(session: Session) -> None:
    answer = session.answers["online"]["c4"]
    assert answer["calibration"] == [f"sw train {number}" for number in range(6)]
    assert answer["evaluation"] == [f"sw validation {number}" for number in range(6)]


def test_c4_stops_at_the_number_of_documents(session: Session) -> None:
    assert session.answers["online"]["c4, three documents"]["calibration"] == [f"sw train {n}" for n in range(3)]


def test_c4_refuses_a_language_that_it_is_not_known_to_have() -> None:
    with pytest.raises(CorpusError, match=r"ace_Latn.*corpus=local"):
        list(C4("org/c4").sentences(Language("ace_Latn", "Acehnese", "Austronesian", "Latn"), "calibration"))


def test_a_pinned_commit_is_all_that_the_hub_is_asked_for(session: Session) -> None:
    asked = session.hub.asked("org/pinned")
    assert asked
    assert all(session.commits["pinned"] in request.path for request in asked)


def test_files_are_read_in_ranges(session: Session) -> None:
    ranges = {request.range for request in session.hub.asked("/storage/")}
    assert ranges
    assert None not in ranges


@pytest.mark.parametrize("time", ["unreachable", "offline"])
@pytest.mark.parametrize("step", ["pinned", "flores", "c4"])
def test_what_was_read_before_is_there_without_the_hub(session: Session, time: str, step: str) -> None:
    read, before = session.answers[time][step], session.answers["online"][step]
    assert {split: read[split] for split in BOTH} == {split: before[split] for split in BOTH}


@pytest.mark.parametrize("time", ["unreachable", "offline"])
@pytest.mark.parametrize("step", ["unread language", "unread"])
def test_what_was_not_read_before_names_what_works_instead(session: Session, time: str, step: str) -> None:
    message = session.error(time, step)
    assert "was not kept here before" in message
    assert ("HF_HUB_OFFLINE" if time == "offline" else "cannot be reached") in message
    assert "corpus=embedded" in message


def test_no_second_try_is_waited_for_when_the_hub_is_unreachable(session: Session) -> None:
    answers = session.answers["unreachable"]
    assert {name: answer["slept"] for name, answer in answers.items()} == dict.fromkeys(later_steps(session.commits), 0)


def test_a_hub_that_is_out_of_order_is_asked_once(session: Session) -> None:
    assert "answers 503" in session.error("online", "broken")
    assert len(session.hub.asked("org/broken")) == 1


@pytest.mark.parametrize("step", ["gated, no token", "gated, stranger"])
def test_a_gated_dataset_asks_for_its_terms_and_a_token(session: Session, step: str) -> None:
    message = session.error("online", step)
    assert message.startswith("corpus=flores_plus (org/gated): access is gated")
    assert "/datasets/org/gated" in message
    assert "HF_TOKEN" in message


def test_an_invalid_token_is_blamed_itself(session: Session) -> None:
    message = session.error("online", "gated, invalid token")
    assert "refuses the token in HF_TOKEN" in message
    assert "terms" not in message


def test_the_token_opens_a_gated_dataset(session: Session) -> None:
    assert session.answers["online"]["gated, member"]["calibration"] == flores_texts("new", "dev")


def test_gated_text_that_was_kept_needs_no_token(session: Session) -> None:
    assert session.answers["online"]["gated, kept"]["calibration"] == flores_texts("new", "dev")


def test_the_token_goes_to_the_hub_and_nowhere_else(session: Session) -> None:
    assert MEMBER in {request.token for request in session.hub.asked("org/gated")}
    assert {request.token for request in session.hub.asked("/storage/")} == {None}


@pytest.mark.parametrize("token", [MEMBER, STRANGER, INVALID])
def test_no_token_is_printed_or_kept(session: Session, token: str) -> None:
    assert "Traceback" in session.printed
    assert token not in session.printed
    files = [file for file in (session.home / "mwanda").rglob("*") if file.is_file()]
    assert files
    assert not any(token in file.read_text(encoding="utf-8") for file in files)


def test_an_unknown_dataset_is_not_taken_for_a_hub_that_is_off(session: Session) -> None:
    assert "the hub has no such dataset" in session.error("online", "unknown")


def test_an_unknown_revision_is_named(session: Session) -> None:
    assert "no revision 'v7'" in session.error("online", "unknown revision")


@pytest.mark.parametrize(
    ("step", "names"),
    [
        ("unknown language", ["'deu_Latn'", "eng_Latn", "swh_Latn"]),
        ("unknown language, folder", ["'deu_Latn'", "eng_Latn", "swh_Latn"]),
        ("unknown language, c4", ["'de'", "en, sw"]),
    ],
)
def test_an_unknown_language_is_named_with_those_that_there_are(session: Session, step: str, names: list[str]) -> None:
    message = session.error("online", step)
    assert [name for name in names if name not in message] == []


def test_a_missing_split_is_named(session: Session) -> None:
    message = session.error("online", "no such split")
    assert message.startswith("corpus=flores_plus (org/half): eng_Latn, devtest could not be read")


def test_a_missing_column_is_named(session: Session) -> None:
    assert "no column 'text'" in session.error("online", "no such column")


def test_text_that_broke_off_is_an_error_and_not_kept(session: Session) -> None:
    assert "could not be read" in session.error("online", "torn")
    kept = session.home / "mwanda" / "corpora"
    assert [*(kept / "org--c4").rglob("sw.train.*")]
    assert not [*(kept / "org--torn").rglob("sw.train.*")]
