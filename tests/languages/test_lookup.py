"""Finding a language by what people call it, and the command that does."""

import re
import subprocess
import sys

import pytest

from mwanda.evaluation.suites import OFFLINE, suite_tasks, suites, words
from mwanda.languages import known
from mwanda.languages.__main__ import main, sets, tasks
from mwanda.languages.lookup import nearest, search


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Swahili", "swh_Latn"),
        ("swahili", "swh_Latn"),
        ("Swahilli", "swh_Latn"),
        ("Kiswahili", "swh_Latn"),
        ("swh_latn", "swh_Latn"),
        ("swh", "swh_Latn"),
        ("swa", "swh_Latn"),
        ("sw", "swh_Latn"),
        ("zho_Hans", "cmn_Hans"),
        ("zh-Hant", "cmn_Hant"),
        ("ger", "deu_Latn"),
        ("Deutsch", "deu_Latn"),
        ("deu_1996", "deu_Latn"),
        ("Farsi", "pes_Arab"),
        ("iw", "heb_Hebr"),
        ("Haitian", "hat_Latn"),
        ("日本語", "jpn_Jpan"),
    ],
)
def test_a_language_is_found_by_code_tag_name_and_misspelling(text: str, code: str) -> None:
    assert search(text)[0].code == code


def test_every_language_is_found_by_its_code_name_and_tag() -> None:
    for code, language in known().items():
        assert search(code)[0] == language
        assert language in search(language.name)
        assert language in search(str(language.bcp_47))
        assert language in search(language.iso_639_3)


def test_what_is_no_language_is_not_found() -> None:
    assert search("qqqqq") == []


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("zho_Hans", ["cmn_Hans"]),
        ("swa", ["swh_Latn"]),
        ("sw_Latn", ["swh_Latn"]),
        ("Swahili", ["swh_Latn"]),
        ("deu_Ltan", ["deu_Latn"]),
        ("uzn_Latin", ["uzn_Latn", "uzn_Cyrl"]),
    ],
)
def test_the_nearest_codes_of_a_wrong_one(wrong: str, right: list[str]) -> None:
    assert nearest(wrong) == right


def test_the_command_prints_all_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["Swahili"]) == 0
    printed = capsys.readouterr().out
    for text in ("swh_Latn", "Atlantic-Congo", "Bantu", "low (class 2", "xnli sw", "belebele swh_Latn", "flores30"):
        assert text in printed


def test_the_command_names_other_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zho_Hans"]) == 0
    assert "see also        cmn_Hant Mandarin Chinese (traditional)" in capsys.readouterr().out


def test_the_command_lists_families(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--family", "Finnic", "--among", "flores_plus"]) == 0
    printed = capsys.readouterr().out
    assert "ekk_Latn" in printed
    assert "fin_Latn" in printed
    assert "2 languages" in printed


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["qqqqq"], "error: qqqqq: no language is called that"),
        (["--family", "Bantoo"], "error: langs.families=Bantoo: .*choices: Bantu"),
    ],
)
def test_the_command_refuses_what_is_not_there(
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.match(line, captured.err)


def test_the_command_imports_nothing_heavy() -> None:
    look = "import sys, mwanda.languages.__main__ as m; m.main(['sw'])"
    code = f"{look}; print('torch' in sys.modules, 'hydra' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False False\n")


def test_words_of_lm_eval_are_those_of_the_suites() -> None:
    failures = []
    for suite in (name for name in suites() if name not in OFFLINE):
        failures += [(suite, word) for word, code in words(suite).items() if tasks(code)[suite] != word]
        if {code for code, _, _ in suite_tasks(suite)} != {code for code in known() if suite in tasks(code)}:
            failures.append((suite, "languages"))
    assert failures == []


def test_a_language_belongs_to_the_sets_that_hold_it() -> None:
    assert {"flores30", "flores200", "bloom46", "xglm30", "udhr", "low_resource", "family_bantu"} <= set(
        sets(known()["swh_Latn"])
    )
    assert sets(known()["cmn_Latn"]) == ["family_chinese", "family_sino_tibetan", "script_latin"]
