"""Models from the hub: pinned, cached, and refused in one line that says what to do."""

import json
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import Client, HubServer, Steps
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model, tiny_tokenizer


MEMBER, STRANGER, INVALID = "hf_memberSecret", "hf_strangerSecret", "hf_invalidSecret"
SENTENCE = "Sote ni sawa."
LOAD_MODEL = f"""
from mwanda.models.source import PretrainedModel


def answer(path, method="load", revision=None, save=None):
    loaded = getattr(PretrainedModel(path, revision), method)()
    if method != "load":
        return {{"loaded": type(loaded).__name__}}
    if save:
        loaded.model.save_pretrained(save)
    return {{"revision": loaded.revision, "tokens": loaded.tokenizer({SENTENCE!r})["input_ids"]}}
"""
FIND_MODEL = """
from mwanda.errors import ModelError
from mwanda.system.hub import UnreachableError, find


def answer(path):
    try:
        return {"commit": find("model", path, None, "config.json")}
    except UnreachableError as error:
        return {"unreachable": str(error)}
"""


@dataclass(frozen=True)
class Session:
    """What clients of a hub were answered: while it was there, and after."""

    folder: Path
    commits: dict[str, str]
    hub: HubServer
    answers: dict[str, dict[str, dict[str, Any]]]
    printed: str

    def error(self, time: str, step: str) -> str:
        """Return the error of a step, which is one line."""
        answer = self.answers[time][step]
        assert answer["type"] == "ModelError"
        message: str = answer["error"]
        assert "\n" not in message
        return message


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors that were saved in a folder."""
    return load_file(folder / "model.safetensors")


def save_changed(source: Path, folder: Path) -> Path:
    """Save a copy of a model with other weights."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    changed = {name: tensor + 1 for name, tensor in weights(source).items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def fill(hub: HubServer, folder: Path) -> dict[str, str]:
    """Push the repositories and return their commits."""
    first = save_tiny_model("llama", folder / "first")
    second = save_changed(first, folder / "second")
    (folder / "cards").mkdir()
    (folder / "cards" / "README.md").write_text("No model here.\n", encoding="utf-8")
    commits = {"pinned": hub.push("model", "org/pinned", first)}
    hub.push("model", "org/pinned", second)
    hub.push("model", "org/moving", first)
    commits["moving"] = hub.push("model", "org/moving", second)
    hub.push("model", "org/gated", first, gated=True)
    hub.push("model", "org/partial", first)
    hub.push("model", "org/barely", first)
    hub.push("model", "org/cards", folder / "cards")
    (folder / "code").mkdir()
    code = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"}}
    (folder / "code" / "config.json").write_text(json.dumps(code), encoding="utf-8")
    hub.push("model", "org/code", folder / "code")
    hub.out_of_order.add("org/broken")
    hub.admit(MEMBER, "org/gated")
    hub.admit(STRANGER)
    return commits


def online_steps(folder: Path, commits: dict[str, str]) -> Steps:
    """Return what is asked while the hub is there."""
    return {
        "pinned": {"path": "org/pinned", "revision": commits["pinned"], "save": str(folder / "pinned")},
        "moving": {"path": "org/moving", "save": str(folder / "moving")},
        "tokenizer of partial": {"path": "org/partial", "method": "load_tokenizer"},
        "configuration of barely": {"path": "org/barely", "method": "load_config"},
        "unknown": {"path": "org/unknown"},
        "unknown, with a token": {"path": "org/unknown", "token": STRANGER},
        "unknown revision": {"path": "org/moving", "revision": "v7"},
        "no model": {"path": "org/cards"},
        "own code": {"path": "org/code", "method": "load_config"},
        "no name": {"path": "not a name"},
        "broken": {"path": "org/broken"},
        "gated, no token": {"path": "org/gated"},
        "gated, stranger": {"path": "org/gated", "token": STRANGER},
        "gated, invalid token": {"path": "org/gated", "token": INVALID},
        "gated, member": {"path": "org/gated", "token": MEMBER},
        "gated, cached": {"path": "org/gated"},
    }


def later_steps(commits: dict[str, str]) -> Steps:
    """Return what is asked when the hub is gone."""
    return {
        "pinned": {"path": "org/pinned", "revision": commits["pinned"]},
        "moving": {"path": "org/moving"},
        "partial": {"path": "org/partial"},
        "barely": {"path": "org/barely"},
        "unknown": {"path": "org/unknown"},
    }


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Ask a hub for everything once, then again after it has gone."""
    folder = tmp_path_factory.mktemp("hub")
    home = folder / "home"
    with ExitStack() as clients:
        with HubServer() as hub:
            online = clients.enter_context(Client(LOAD_MODEL, hub.url, home))
            offline = clients.enter_context(Client(LOAD_MODEL, hub.url, home, HF_HUB_OFFLINE="1"))
            commits = fill(hub, folder)
            answers = {"online": online.ask(online_steps(folder, commits))}
        answers["unreachable"] = online.ask(later_steps(commits))
        answers["offline"] = offline.ask(later_steps(commits))
        return Session(folder, commits, hub, answers, online.printed() + offline.printed())


def test_a_pinned_commit_gives_the_weights_of_that_commit(session: Session) -> None:
    loaded, pushed = weights(session.folder / "pinned"), weights(session.folder / "first")
    assert loaded.keys() == pushed.keys()
    assert all(torch.equal(loaded[name], pushed[name]) for name in pushed)


def test_a_pinned_commit_is_all_that_the_hub_is_asked_for(session: Session) -> None:
    asked = session.hub.asked("org/pinned")
    assert asked
    assert all(session.commits["pinned"] in request.path for request in asked)


def test_without_a_revision_the_newest_weights_are_loaded(session: Session) -> None:
    loaded, pushed = weights(session.folder / "moving"), weights(session.folder / "second")
    assert all(torch.equal(loaded[name], pushed[name]) for name in pushed)


@pytest.mark.parametrize("time", ["online", "unreachable", "offline"])
@pytest.mark.parametrize("name", ["pinned", "moving"])
def test_the_record_holds_the_commit_even_of_a_branch(session: Session, time: str, name: str) -> None:
    assert session.answers[time][name]["revision"] == session.commits[name]


def test_the_tokenizer_is_the_repository_s(session: Session) -> None:
    assert session.answers["online"]["pinned"]["tokens"] == tiny_tokenizer()(SENTENCE)["input_ids"]


@pytest.mark.parametrize("time", ["unreachable", "offline"])
def test_what_is_cached_loads_without_the_hub(session: Session, time: str) -> None:
    for name in ("pinned", "moving"):
        assert session.answers[time][name]["tokens"] == session.answers["online"][name]["tokens"]


def test_no_second_try_is_waited_for_when_the_hub_is_unreachable(session: Session) -> None:
    answers = session.answers["unreachable"]
    assert {name: answer["slept"] for name, answer in answers.items()} == dict.fromkeys(later_steps(session.commits), 0)


def test_a_hub_that_is_out_of_order_is_asked_once(session: Session) -> None:
    assert "answers 503" in session.error("online", "broken")
    assert len(session.hub.asked("org/broken")) == 1


@pytest.mark.parametrize("time", ["unreachable", "offline"])
def test_an_uncached_model_without_the_hub_names_what_works_instead(session: Session, time: str) -> None:
    message = session.error(time, "unknown")
    assert message.startswith("model.path=org/unknown: not all of it is cached here")
    assert ("HF_HUB_OFFLINE" if time == "offline" else "cannot be reached") in message
    assert "model.path=FOLDER" in message


def test_a_hub_that_never_answers_is_given_up_after_the_time_limit(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(FIND_MODEL, endpoint, tmp_path, HF_HUB_ETAG_TIMEOUT="1") as client:
            answer = client.ask({"find": {"path": "org/any"}})["find"]
    assert answer["unreachable"].endswith("cannot be reached (ReadTimeout)")
    assert answer["slept"] == 0


@pytest.mark.parametrize("time", ["unreachable", "offline"])
def test_a_half_cached_model_is_not_loaded_without_the_hub(session: Session, time: str) -> None:
    assert session.answers["online"]["tokenizer of partial"]["loaded"]
    assert "not all of it is cached here" in session.error(time, "partial")
    assert "only the cache was read" in session.error(time, "barely")


@pytest.mark.parametrize("step", ["unknown", "unknown, with a token"])
def test_an_unknown_model_is_not_taken_for_a_hub_that_is_off(session: Session, step: str) -> None:
    message = session.error("online", step)
    assert message.startswith("model.path=org/unknown: the hub has no such model")
    assert "HF_TOKEN" in message


def test_an_unknown_revision_is_named(session: Session) -> None:
    message = session.error("online", "unknown revision")
    assert "no revision 'v7'" in message
    assert "/org/moving" in message


def test_a_repository_without_a_model_is_said_to_have_none(session: Session) -> None:
    assert "there is no config.json in it" in session.error("online", "no model")


def test_a_model_with_its_own_code_is_not_run_unasked(session: Session) -> None:
    assert "add model.trust_remote_code=true" in session.error("online", "own code")
    assert not session.hub.asked("own.py")


def test_what_can_be_no_hub_name_is_said_to_be_none(session: Session) -> None:
    assert "neither a folder nor a name" in session.error("online", "no name")


@pytest.mark.parametrize("step", ["gated, no token", "gated, stranger"])
def test_a_gated_model_asks_for_its_terms_and_a_token(session: Session, step: str) -> None:
    message = session.error("online", step)
    assert "accept the terms" in message
    assert "/org/gated" in message
    assert "HF_TOKEN" in message


def test_an_invalid_token_is_blamed_itself(session: Session) -> None:
    message = session.error("online", "gated, invalid token")
    assert "refuses the token in HF_TOKEN" in message
    assert "terms" not in message


def test_the_token_opens_a_gated_model(session: Session) -> None:
    assert session.answers["online"]["gated, member"]["tokens"]
    sent = {request.token for request in session.hub.asked("org/gated")}
    assert sent == {None, STRANGER, INVALID, MEMBER}


def test_a_gated_model_in_the_cache_needs_no_token(session: Session) -> None:
    assert session.answers["online"]["gated, cached"]["tokens"] == session.answers["online"]["gated, member"]["tokens"]


def test_the_token_goes_to_the_hub_and_nowhere_else(session: Session) -> None:
    stored = session.hub.asked("/storage/")
    assert stored
    assert {request.token for request in stored} == {None}


@pytest.mark.parametrize("token", [MEMBER, STRANGER, INVALID])
def test_no_token_is_printed(session: Session, token: str) -> None:
    assert "Traceback" in session.printed
    assert token not in session.printed
