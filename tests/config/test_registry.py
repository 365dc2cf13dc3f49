"""No code is imported that the user has not named, and every class is taken for its own group alone."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mwanda.config import compose, identity, schema
from mwanda.config.registry import REQUIRED, class_of, is_registered, registered
from mwanda.criteria.wanda import Wanda
from mwanda.errors import ConfigurationError
from mwanda.job.components import Parts
from mwanda.languages import Language
from mwanda.pruner import Pruner


@dataclass(frozen=True)
class Mine(Wanda):
    """A criterion of the user's."""


@dataclass(frozen=True)
class MyPruner(Pruner):
    """A pruner of the user's."""


@dataclass(frozen=True)
class MyCorpus:
    """A corpus of the user's that does not say what becomes of lines of both sides."""

    name = "mine"

    def has(self, language: Language) -> bool:
        """Have every language."""
        return True

    def sentences(self, language: Language, split: str) -> Iterator[str]:
        """Yield one sentence."""
        yield "Mine."


@dataclass(frozen=True)
class Unlike:
    """Derived from nothing."""


SMALL = ["langs=inline", "langs.codes=[eng_Latn]", "tracking=none"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a module that leaves a file when it is imported."""
    left = tmp_path / "imported"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_stranger", raising=False)
    (tmp_path / "my_stranger.py").write_text(f"import pathlib\npathlib.Path({str(left)!r}).touch()\nThing = int\n")
    return left


@pytest.mark.parametrize("group", schema.GROUPS)
def test_the_classes_of_a_group_are_of_that_group_alone(group: str) -> None:
    assert registered(group)
    for target in registered(group):
        assert class_of(group, target).__name__ == target.rpartition(".")[2]
        assert all(hasattr(class_of(group, target), name) or name in class_of(group, target).__dataclass_fields__
                   for name in REQUIRED.get(group, ()))  # fmt: skip
        for other in set(schema.GROUPS) - {group}:
            with pytest.raises(ConfigurationError, match=f"is none of the group {other}; choices: mwanda"):
                class_of(other, target)


@pytest.mark.parametrize("group", REQUIRED)
def test_a_class_of_another_group_does_not_do_what_a_group_asks_for(group: str) -> None:
    for other in set(REQUIRED) - {group}:
        for target in registered(other):
            found = class_of(other, target)
            assert not all(hasattr(found, name) or name in found.__dataclass_fields__ for name in REQUIRED[group])


@pytest.mark.parametrize("plugins", [[], ["my_strange"], ["stranger"], ["my_stranger.Thing"]])
def test_a_module_that_is_not_named_is_not_imported(module: Path, plugins: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"a class of your own needs plugins=\[my_stranger\]"):
        class_of("criterion", "my_stranger.Thing", plugins)
    assert not module.exists()
    with pytest.raises(ConfigurationError, match="is no dataclass"):
        class_of("criterion", "my_stranger.Thing", ["my_stranger"])
    assert module.exists()


@pytest.mark.parametrize(
    "override",
    ["criterion._target_=this.s", "pattern._target_=transformers.TrainingArguments", "corpus._target_=os.system"],
)
def test_what_is_typed_imports_nothing_by_itself(override: str) -> None:
    sys.modules.pop("this", None)
    with pytest.raises(ConfigurationError, match="a class of your own needs plugins="):
        Parts.of(compose.run_spec([*SMALL, override]))
    assert "this" not in sys.modules


def test_an_evaluation_corpus_is_a_corpus() -> None:
    assert class_of("evaluation.corpus", "mwanda.corpora.local.Local").__name__ == "Local"
    with pytest.raises(ConfigurationError, match="is none of the group corpus"):
        class_of("evaluation.corpus", "mwanda.evaluation.perplexity.Perplexity")


def test_the_users_own_class_is_taken_by_the_users_word() -> None:
    plain = compose.run_spec(SMALL)
    mine = ["criterion=wanda", f"criterion._target_={__name__}.Mine", f"plugins=[{__name__}]"]
    spec = compose.run_spec([*SMALL, *mine])
    assert isinstance(Parts.of(spec).criterion, Mine)
    assert identity.config_hash(plain.config | {"plugins": ["a"]}) == plain.config_hash


def test_where_a_group_has_no_contract_a_class_is_derived_from_one_of_it() -> None:
    assert class_of("pruner", f"{__name__}.MyPruner", [__name__]) is MyPruner
    with pytest.raises(ConfigurationError, match="must be derived from a class of the group pruner; choices: mwanda"):
        class_of("pruner", f"{__name__}.Unlike", [__name__])


def test_what_a_run_asks_of_a_class_is_asked_for_before_it() -> None:
    with pytest.raises(ConfigurationError, match="is none of the group corpus, whose classes have drop_overlap"):
        class_of("corpus", f"{__name__}.MyCorpus", [__name__])


@pytest.mark.parametrize("plugins", ["[1x]", "[a/b]", "[a..b]", "['']", "a", "[[a]]"])
def test_a_plugin_is_the_name_of_a_package(plugins: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^plugins="):
        compose.run_spec([*SMALL, f"plugins={plugins}"])


def test_mwanda_is_no_plugin() -> None:
    assert not is_registered("mwanda.errors.InputError")
    with pytest.raises(ConfigurationError, match="is no class of this project"):
        class_of("criterion", "mwanda.errors.InputError", ["mwanda"])


def test_a_module_that_breaks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_broken.py").write_text("raise RuntimeError('two\\nlines')\n")
    with pytest.raises(ConfigurationError, match=r"cannot be imported \(RuntimeError: two lines\)"):
        class_of("criterion", "my_broken.Thing", ["my_broken"])
