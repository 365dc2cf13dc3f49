"""Every choice says what it is and how to ask for it, builds, and names the arguments of its class."""

import re
import shlex
from collections import Counter
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from hydra.utils import get_class

from mwanda import command_line
from mwanda.config import compose, schema
from mwanda.corpora import embedded
from mwanda.job.components import Parts
from mwanda.languages import known, sets
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
    "langs": {"flores30", "flores200", "mwanda15", "xglm30", "bloom46", "udhr", "low_resource", "inline"},
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


def group_of(path: Path) -> str:
    return path.parent.relative_to(conf.CONF).as_posix()


def name_of(path: Path) -> str:
    return f"{group_of(path)}={path.stem}"


def read(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def command_of(path: Path) -> list[str]:
    """Return the arguments of the command in a file's second line."""
    line = path.read_text(encoding="utf-8").splitlines()[1]
    start, program, *arguments = shlex.split(line.partition("   (")[0].removeprefix("# "))
    assert (start, program) == ("python", "run.py")
    return arguments


def arguments_of(path: Path) -> dict[str, Field[Any]]:
    """Return the arguments of the class that a file names."""
    target = read(path)["_target_"]
    return {one.name: one for part in schema.parts_of(get_class(target)) for one in fields(part) if one.init}


@pytest.mark.parametrize("group", CHOICES)
def test_a_group_has_the_choices_that_users_are_promised(group: str) -> None:
    assert set(conf.choices(group)) >= CHOICES[group]


def test_every_group_is_known_to_the_schema() -> None:
    assert {group_of(path) for path in FILES} == {*schema.GROUPS, "langs", "hydra/launcher"}


@pytest.mark.parametrize("path", [*FILES, conf.CONF / "config.yaml"], ids=name_of)
def test_a_file_opens_with_what_it_is_and_a_command(path: Path) -> None:
    first, second, third, *_ = path.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch("# .{10,}[.)]|# .*https://[^ ]+|# The main configuration: .*", first)
    assert second.startswith("# python run.py ")
    assert not third.startswith("#")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_command_names_the_choice(path: Path) -> None:
    arguments = command_line.with_inline_languages(command_of(path))
    assert f"{group_of(path)}={path.stem}" in arguments


@pytest.mark.parametrize("path", [*FILES, conf.CONF / "config.yaml"], ids=name_of)
def test_the_command_composes_and_builds(path: Path, tmp_path: Path) -> None:
    if group_of(path) == "hydra/launcher":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the launcher is not installed")
    command = [each.replace("FOLDER", str(tmp_path)) for each in command_of(path)]
    for stem in (*known(), "deu_1996") if command != command_of(path) else ():
        (tmp_path / f"{stem}.txt").touch()
    arguments = command_line.with_inline_languages(command)
    command_line.check(arguments)


@pytest.mark.parametrize("path", COMPONENTS, ids=name_of)
def test_a_file_holds_the_arguments_of_its_class(path: Path) -> None:
    node = read(path)
    if node["_target_"] is None:
        assert list(node) == ["_target_"]
        return
    arguments = list(arguments_of(path))
    # The text of the evaluation is chosen with it, but read by the job.
    expected = ["_target_", *(["corpus"] if group_of(path) == "evaluation" else []), *arguments]
    assert list(node) == expected


@pytest.mark.parametrize("path", [path for path in COMPONENTS if read(path)["_target_"]], ids=name_of)
def test_values_are_the_defaults_of_the_class_unless_they_are_the_point(path: Path) -> None:
    node = read(path)
    for name, argument in arguments_of(path).items():
        if name in CHANGED.get(group_of(path), ()):
            continue
        default = argument.default_factory() if argument.default_factory is not MISSING else argument.default
        assert node[name] == (list(default) if isinstance(default, tuple) else default), name


@pytest.mark.parametrize("path", COMPONENTS, ids=name_of)
def test_comments_list_the_choices_that_there_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    listed = re.findall(r"^(\w+): .*# (\w+(?: \| \w+)+)$", text, re.MULTILINE)
    hints = get_type_hints(get_class(read(path)["_target_"])) if listed else {}
    for name, choices in listed:
        assert set(choices.split(" | ")) == set(get_args(hints[name]))


@pytest.mark.parametrize("path", [path for path in COMPONENTS if "revision" in read(path)], ids=name_of)
def test_what_comes_from_the_hub_is_pinned(path: Path) -> None:
    node = read(path)
    if "/" in node["path"]:
        assert COMMIT.fullmatch(node["revision"])
    else:
        assert node["revision"] is None


@pytest.mark.parametrize("path", sorted((conf.CONF / "corpus").glob("*.yaml")), ids=name_of)
def test_a_corpus_refers_to_nothing_outside_its_file(path: Path) -> None:
    assert "${" not in path.read_text(encoding="utf-8")  # evaluation.corpus reads the file alone


def test_the_thirty_languages_are_those_of_the_embedded_corpus() -> None:
    assert read(conf.CONF / "langs" / "flores30.yaml")["codes"] == embedded.codes()


def test_a_run_without_arguments_builds_what_the_defaults_name() -> None:
    parts = Parts.of(compose.run_spec([]))
    names = [type(each).__name__ for each in (parts.source, parts.criterion, parts.schedule, parts.pattern)]
    assert names == ["PackagedGemma", "MWanda", "Uniform", "Unstructured"]
    assert len(parts.languages) == 30


@pytest.mark.parametrize(
    ("name", "count"),
    [("flores30", 30), ("flores200", 210), ("mwanda15", 15), ("xglm30", 30), ("bloom46", 46), ("udhr", 458)],
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


@pytest.mark.parametrize("name", [name for name in conf.choices("langs") if name[:6] in ("family", "script")])
def test_a_set_by_family_or_script_is_a_rule_and_no_list(name: str) -> None:
    chosen = sets.language_set("langs", name)
    assert not chosen.codes
    assert len(chosen.named()) >= 3
