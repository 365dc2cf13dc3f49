"""Secrets of the environment and of URLs stand in no text that has been through the one function that hides them."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mwanda.system.secrets import HidingStream, Secrets, hidden, hidden_path, hidden_within


TOKEN = "hf_AbCdEfGh12345678"
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n"
SECRETS = Secrets.of({"HF_TOKEN": TOKEN, "SSH_KEY": KEY, "DB_PASSWORD": 'grün "&" rot/gelb', "HOME": "/home/someone"})


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD",
        "CLIENT_SECRET", "openai_api_key", "OPENAI_APIKEY", "GITHUB_PAT", "MYSQL_PWD", "TOKEN", "HF_TOKEN_2",
        "API_KEYS", "DB_PASS", "AZURE_CREDENTIALS",
    ],
)  # fmt: skip
def test_a_variable_that_is_named_like_a_secret_is_one(name: str) -> None:
    assert Secrets.of({name: TOKEN}).hidden(f"a {TOKEN}.") == f"a ${{oc.env:{name}}}."


@pytest.mark.parametrize("name", ["PWD", "HOME", "TOKENIZERS_PARALLELISM", "KEYBOARD", "MONKEY", "PATH", "COMPASS"])
def test_other_variables_are_none(name: str) -> None:
    assert Secrets.of({name: "/home/someone"}).hidden("in /home/someone") == "in /home/someone"


def test_what_is_short_or_a_place_is_no_secret(tmp_path: object) -> None:
    others = {"SORT_KEY": "name", "SSL_KEY": str(tmp_path), "A_TOKEN": "", "B_TOKEN": "  "}
    text = f"by name in {tmp_path}"
    assert Secrets.of(others).hidden(text) == text


def test_the_longer_of_two_secrets_is_hidden_first() -> None:
    both = Secrets.of({"A_TOKEN": "12345678", "B_TOKEN": "1234567890"})
    assert both.hidden("1234567890 12345678") == "${oc.env:B_TOKEN} ${oc.env:A_TOKEN}"


def test_a_value_is_hidden_in_every_form_in_which_it_may_be_written() -> None:
    value = 'grün "&" rot/gelb'
    for form in (value, json.dumps(value), repr(value), "gr%C3%BCn%20%22%26%22%20rot%2Fgelb", f"x={value}\n"):
        told = SECRETS.hidden(form)
        assert "rot" not in told
        assert "${oc.env:DB_PASSWORD}" in told


def test_the_lines_of_a_key_are_hidden_each() -> None:
    difference = "".join(f"+{line}\n" for line in KEY.splitlines())
    assert SECRETS.hidden(difference) == "+${oc.env:SSH_KEY}\n" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:pass@host/x", "https://***@host/x"),
        ("http://u:p@ss@h/x y@z", "http://***@h/x y@z"),
        ("https://user:pa/ss@h/", "https://***@h/"),
        ("https://user:1234@h", "https://***@h"),
        ("redis://:pw@h, postgres://u:p@h/db", "redis://***@h, postgres://***@h/db"),
        ("clone https://ghp_token@github.com/x.git", "clone https://***@github.com/x.git"),
        ("HTTPS://USER:PASS@HOST", "HTTPS://***@HOST"),
        ("'http://a:b@c' \"http://d:e@f\"", "'http://***@c' \"http://***@f\""),
        ("https://h/x?a=1&token=abc&b=2", "https://h/x?a=1&token=***&b=2"),
        ("https://h/x?X-Amz-Signature=abc", "https://h/x?X-Amz-Signature=***"),
    ],
)
def test_credentials_in_a_url_are_hidden(text: str, expected: str) -> None:
    assert SECRETS.hidden(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "ssh://git@github.com/x",
        "https://host:8080/a@b",
        "see http://h:80/ and a@b",
        "http://127.0.0.1:8080/api failed, ask me@x.org",
        "mailto:a@b",
        "https://h/x?page=2&order=key",
        "a token=abc",
    ],
)
def test_urls_without_credentials_stay(text: str) -> None:
    assert SECRETS.hidden(text) == text


def test_another_form_can_stand_for_a_value() -> None:
    assert SECRETS.hidden(f"export HF_TOKEN={TOKEN}", "${}") == "export HF_TOKEN=$HF_TOKEN"


def test_secrets_are_hidden_within_mappings_and_sequences_and_nothing_else_changes() -> None:
    value = {"tags": [TOKEN, 1, None], f"a {TOKEN}": {"n": 0.5, "url": "http://a:b@c"}, "pair": (True, TOKEN)}
    hide = "${oc.env:HF_TOKEN}"
    assert SECRETS.hidden_within(value) == {
        "tags": [hide, 1, None],
        f"a {hide}": {"n": 0.5, "url": "http://***@c"},
        "pair": [True, hide],
    }
    assert value["tags"] == [TOKEN, 1, None]


def test_keys_of_our_own_stay_though_a_variable_holds_the_word() -> None:
    assert Secrets.of({"SORT_KEY": "language"}).hidden_within({"language": 1}) == {"language": 1}


def test_the_environment_is_read_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hidden(TOKEN) == TOKEN
    monkeypatch.setenv("MY_API_KEY", TOKEN)
    assert hidden(TOKEN) == "${oc.env:MY_API_KEY}"
    assert hidden_within([TOKEN]) == ["${oc.env:MY_API_KEY}"]


def test_a_secret_of_digits_is_found_as_a_number_and_not_within_another() -> None:
    digits = Secrets.of({"PIN_KEY": "12345678"})
    assert digits.hidden("pin=12345678, 0.1234567812, 912345678, 12345678") == (
        "pin=${oc.env:PIN_KEY}, 0.1234567812, 912345678, ${oc.env:PIN_KEY}"
    )


def test_a_path_is_hidden_in_what_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert hidden_path(str(tmp_path / "run")) == str(tmp_path / "run")
    assert hidden_path(f"{tmp_path}/a/{TOKEN}_run") == f"{tmp_path}/a/HF_TOKEN_run"
    (tmp_path / TOKEN).mkdir()
    assert hidden_path(f"{tmp_path}/{TOKEN}/{TOKEN}") == f"{tmp_path}/{TOKEN}/HF_TOKEN"
    assert hidden_path(f"{tmp_path}/{TOKEN}") == f"{tmp_path}/{TOKEN}"
    monkeypatch.chdir(tmp_path)
    assert hidden_path(f"outputs/{TOKEN}") == "outputs/HF_TOKEN"


def test_nothing_secret_passes_a_stream_and_all_else_of_it_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    behind = io.StringIO()
    stream = HidingStream(behind)
    print("a", TOKEN, file=stream)
    stream.writelines([TOKEN, "\n"])
    stream.flush()
    assert behind.getvalue() == "a ${oc.env:HF_TOKEN}\n${oc.env:HF_TOKEN}\n"
    assert stream.isatty() is False


@settings(deadline=None, max_examples=200)
@given(
    st.text(), st.text(), st.text(min_size=8).filter(lambda text: len(text.strip()) >= 8 and not text.strip().isdigit())
)
def test_no_text_around_it_lets_a_secret_through(before: str, after: str, secret: str) -> None:
    told = Secrets.of({"A_TOKEN": secret}).hidden(f"{before}{secret}{after}")
    assert secret.strip() not in told.replace("${oc.env:A_TOKEN}", "") or secret.strip().isdigit()
