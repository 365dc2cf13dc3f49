"""Every task that a suite names is one of the installed lm-eval; what does not exist is refused with what does."""

import re
import subprocess
import sys
from importlib.resources import files

import pytest
import yaml

from mwanda.config.schema import build
from mwanda.errors import ConfigurationError, UnknownKeyError
from mwanda.evaluation import suites
from mwanda.evaluation.harness import Full, Harness
from mwanda.evaluation.perplexity import Perplexity
from mwanda.languages import find


EXPECTED = {
    "xnli",
    "xcopa",
    "xstorycloze",
    "xwinograd",
    "paws-x",
    "belebele",
    "global_mmlu",
    "lambada_multilingual",
    "mgsm",
    "flores_translation",
    "parallel_cloze",
    "parallel_match",
}
OF_LM_EVAL = [suite for suite in suites.suites() if suite not in suites.OFFLINE]
LANGUAGES = find(["eng_Latn", "swh_Latn", "cmn_Hans"])


def names(*tasks: str, codes: tuple[str, ...] = ("eng_Latn", "swh_Latn", "cmn_Hans")) -> list[str]:
    return [each.name for each in suites.choose(tasks, find(codes), "eng_Latn")]


def test_the_suites_are_those_that_users_are_promised() -> None:
    assert set(suites.suites()) >= EXPECTED


@pytest.mark.parametrize("suite", OF_LM_EVAL)
def test_every_task_of_a_suite_is_defined_in_its_folder(suite: str) -> None:
    defined: dict[str, set[str]] = {}
    for code, task, folder in suites.suite_tasks(suite):
        assert find([code])
        if folder not in defined:
            paths = list((suites.task_root() / folder).rglob("*.yaml"))
            assert paths, folder
            texts = [path.read_text(encoding="utf-8") for path in paths]
            defined[folder] = {
                name.strip("\"' ")
                for text in texts
                for name in re.findall(r"^(?:task|group): *([^#\n]+?) *$", text, re.MULTILINE)
            }
        assert task in defined[folder], f"{task} is not in lm_eval/tasks/{folder}"


@pytest.mark.parametrize("suite", OF_LM_EVAL)
def test_a_task_belongs_to_one_language(suite: str) -> None:
    tasks = [task for _, task, _ in suites.suite_tasks(suite)]
    assert len(tasks) == len(set(tasks))


def test_a_suite_stands_for_the_languages_of_the_run() -> None:
    assert names("xnli") == ["xnli_en", "xnli_sw", "xnli_zh"]
    assert names("belebele", codes=("cmn_Hans", "fil_Latn")) == ["belebele_zho_Hans", "belebele_tgl_Latn"]
    assert names("paws-x") == ["paws_en", "paws_zh"]
    assert names("parallel_cloze") == ["parallel_cloze_eng_Latn", "parallel_cloze_swh_Latn", "parallel_cloze_cmn_Hans"]
    assert names("parallel_match") == ["parallel_match_swh_Latn", "parallel_match_cmn_Hans"]
    assert names("flores_translation", codes=("swh_Latn", "spa_Latn")) == [
        "flores_eng_Latn-swh_Latn_prompt_1",
        "flores_swh_Latn-eng_Latn_prompt_1",
        "spanish_bench_flores_en-es",
        "spanish_bench_flores_es-en",
    ]


def test_a_single_task_may_be_in_any_language_and_is_run_once() -> None:
    (found,) = suites.choose(["xnli_de"], LANGUAGES, "eng_Latn")
    assert (found.name, found.suite, found.folder) == ("xnli_de", "xnli", "xnli")
    assert found.language is not None
    assert found.language.code == "deu_Latn"
    assert names("xnli_sw", "xnli", "xnli_sw") == ["xnli_sw", "xnli_en", "xnli_zh"]
    assert names("parallel_cloze_tel_Telu") == ["parallel_cloze_tel_Telu"]


def test_tasks_and_groups_outside_the_suites_are_found_by_their_definition() -> None:
    task, group = suites.choose(["arc_easy", "mmlu"], LANGUAGES, "eng_Latn")
    assert (task.folder, group.folder) == ("arc", "mmlu")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("xnlii", "evaluation.tasks=xnlii: is no suite and no task of lm-eval; choices: xnli"),
        ("xnli_swa", "xnli_sw"),
        ("belebel", "belebele"),
        ("xwinograd", "has none of the run's languages; langs that it has; choices: "),
        ("parallel_cloze_swa", "swa is not a FLORES+ code"),
        ("parallel_match_eng_Latn", "translates the pivot into itself"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        suites.choose([name], find(["swh_Latn", "tam_Taml"]), "eng_Latn")
    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"evaluation.tasks={name}: ")
    assert "\n" not in str(caught.value)


def test_a_match_needs_another_language_than_the_pivot() -> None:
    with pytest.raises(ConfigurationError, match=r"needs a language besides evaluation\.pivot=eng_Latn"):
        names("parallel_match", codes=("eng_Latn",))


FULL = "mwanda.evaluation.harness.Full"


@pytest.mark.parametrize("kind", ["mwanda.evaluation.harness.Harness", FULL])
def test_settings_that_mean_nothing_are_refused(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=r"evaluation\.tasks=\[\]: names no task; choices: parallel_cloze"):
        build("evaluation", {"_target_": kind, "tasks": []})
    with pytest.raises(ConfigurationError, match=r"evaluation\.pivot=English: is not a FLORES\+ code"):
        build("evaluation", {"_target_": kind, "pivot": "English"})


def test_full_is_made_of_both_parts_and_each_checks_its_own_keys() -> None:
    full = build("evaluation", {"_target_": FULL, "window": 8, "stride": 8, "limit": 3})
    assert full == Full(Harness(limit=3), Perplexity(window=8, stride=8))
    with pytest.raises(ConfigurationError, match=r"evaluation\.stride=9: exceeds"):
        build("evaluation", {"_target_": FULL, "window": 8, "stride": 9})
    with pytest.raises(UnknownKeyError, match=r"evaluation\.windw=8: there is no key 'windw'"):
        build("evaluation", {"_target_": FULL, "windw": 8})


def test_choosing_needs_no_lm_eval() -> None:
    code = (
        "import sys; from mwanda.evaluation.harness import Harness; from mwanda.languages import find;"
        "Harness(tasks=('xnli', 'arc_easy', 'parallel_match')).choose(find(['swh_Latn']));"
        "print('lm_eval' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", suites.OFFLINE)
def test_a_definition_of_our_own_opens_with_what_it_is_and_a_command(name: str) -> None:
    text = (files("mwanda.evaluation.tasks") / f"{name}.yaml").read_text(encoding="utf-8")
    first, second, *_ = text.splitlines()
    assert first.startswith("# ")
    assert second.startswith("# python run.py evaluation=harness ")
    assert yaml.safe_load(text)["task"] == name
