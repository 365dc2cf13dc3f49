"""Every key and value is checked against the types and bounds of the class that it goes to."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from annotated_types import Ge, Gt, Le

from mwanda.config import compose, identity, schema
from mwanda.config.identity import RunSpec
from mwanda.corpora.local import Local
from mwanda.errors import ConfigurationError, InputError, UnknownKeyError
from mwanda.job.components import Parts
from mwanda.languages import sets
from mwanda.models.gemma import PackagedGemma
from mwanda.models.source import PretrainedModel
from mwanda.system import conf


@dataclass(frozen=True)
class Example:
    """A component with an argument of every kind."""

    needed: int
    share: Annotated[float, Ge(0), Le(1)] = 0.5
    count: Annotated[int, Gt(0)] | None = None
    kind: Literal["plain", "fancy"] = "plain"
    flag: bool = False
    title: str = "none"
    name: ClassVar[str] = "example"

    def write(self) -> None:
        """Be an export."""


@dataclass(frozen=True)
class Other:
    """A dataclass of no group."""


HERE = f"{__name__}.Example"


def build(node: Mapping[str, Any]) -> Any:
    """Return what a class of this very module makes of a node."""
    return schema.build("export", node, [__name__])


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    return compose.compose(["langs=inline", "langs.codes=[eng_Latn,deu_Latn]", "tracking=none"])


@pytest.fixture
def config(composed: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(composed)


def test_what_is_given_reaches_the_class_and_the_rest_keeps_its_defaults() -> None:
    assert build({"_target_": HERE, "needed": 3, "share": 1}) == Example(needed=3, share=1.0)


def test_numbers_are_taken_where_text_is_wanted() -> None:
    assert build({"_target_": HERE, "needed": 3, "title": 2024}).title == "2024"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("needed", "many", "integer"),
        ("needed", 1.5, "integer"),
        ("needed", None, "integer"),
        ("needed", [1], "integer"),
        ("share", 1.01, "less than or equal to 1"),
        ("share", -0.01, "greater than or equal to 0"),
        ("share", float("nan"), "finite"),
        ("share", float("inf"), "finite"),
        ("share", {"a": 1}, "number"),
        ("count", 0, "greater than 0"),
        ("count", "some", "integer"),
        ("kind", "fncy", "choices: fancy, plain"),
        ("kind", None, "choices: plain, fancy"),
        ("flag", "perhaps", "boolean"),
        ("title", ["a"], "string"),
    ],
)
def test_a_value_that_does_not_suit_is_named(key: str, value: object, reason: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        build({"_target_": HERE, "needed": 3, key: value})
    message = str(error.value)
    assert message.startswith(f"export.{key}={value}: ")
    assert reason in message
    assert "\n" not in message


def test_an_unknown_key_is_named_with_those_nearest() -> None:
    with pytest.raises(UnknownKeyError, match=r"^export\.shar=1: there is no key 'shar' in 'export'; choices: share, "):
        build({"_target_": HERE, "needed": 3, "shar": 1})


def test_an_argument_without_a_default_must_be_given() -> None:
    with pytest.raises(ConfigurationError, match=r"^export\.needed=\(nothing\): must be given$"):
        build({"_target_": HERE})


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nothing_of_that_name", "is no full name of a class"),
        (3, "is no full name of a class"),
        ("a b.c", "is no full name of a class"),
        ("no_such_package.Example", r"a class of your own needs plugins=\[no_such_package\]; choices: .*Masks"),
        ("os.system", r"a class of your own needs plugins=\[os\]"),
        ("mwanda.errors.InputError", "is no class of this project; choices: "),
        ("mwanda.criteria.wanda.Wanda", "is none of the group export; choices: .*Masks"),
        (f"{__name__}.Nothing", r"cannot be imported \(AttributeError"),
        (f"{__name__}.build", "is no dataclass"),
        (f"{__name__}.Other", "is none of the group export, whose classes have name, write; choices: .*Masks"),
    ],
)
def test_a_target_that_is_none_of_the_group_is_refused(target: object, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as error:
        build({"_target_": target})
    assert str(error.value).startswith(f"export._target_={target}: ")


@pytest.mark.parametrize("section", schema.MAY_BE_NOTHING)
def test_evaluation_and_export_may_be_nothing(section: str) -> None:
    assert schema.build(section, {"_target_": None}) is None
    with pytest.raises(UnknownKeyError, match=rf"^{section}\.key=1: .*choices: none$"):
        schema.build(section, {"_target_": None, "key": 1})


@pytest.mark.parametrize("section", sorted(set(schema.GROUPS) - set(schema.MAY_BE_NOTHING)))
@pytest.mark.parametrize("node", [{}, {"_target_": None}], ids=["absent", "null"])
def test_all_else_must_be_something(section: str, node: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{section}\._target_=None: must be given$"):
        schema.build(section, node)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("sparsity", 1.0, r"sparsity=1\.0: must be at least 0 and below 1"),
        ("sparsity", -0.1, r"sparsity=-0\.1: must be at least 0 and below 1"),
        ("sparsity", float("nan"), r"sparsity=nan: input should be a finite number"),
        ("sparsity", "half", r"sparsity=half: input should be a valid number"),
        ("seed", 1.5, r"seed=1\.5: input should be a valid integer"),
        ("seed", None, r"seed=None: input should be a valid integer"),
        ("mode", "inspct", r"mode=inspct: is none of its choices; choices: inspect, run, prepare"),
        ("resume", "perhaps", r"resume=perhaps: input should be a valid boolean"),
        ("output_dir", "", r"output_dir=: string should have at least 1 character"),
        ("name", None, r"name=None: input should be a valid string"),
        ("langs", {"codes": "eng_Latn"}, r"langs\.codes=eng_Latn: input should be a valid list"),
        ("langs", {"codes": ["eng_Latn", None]}, r"langs\.codes=None: input should be a valid string"),
        ("langs", {"codes": [], "cods": []}, r"langs\.cods=\[\]: there is no key 'cods' in 'langs'; choices: codes"),
        ("langs", {"among": "wikipedia"}, r"langs\.among=wikipedia: is none of its choices; choices: .*flores_plus"),
        ("langs", {"sample": 0}, r"langs\.sample=0: input should be greater than 0"),
        ("model", "bloom", r"model=bloom: input should be a valid dictionary"),
    ],
)
def test_the_top_level_is_checked(config: dict[str, Any], key: str, value: object, line: str) -> None:
    with pytest.raises(InputError, match=f"^{line}"):
        schema.read(config | {key: value})


@pytest.mark.parametrize("key", sorted(schema.Settings.model_fields.keys() - {"solver", "plan"}))
def test_every_key_of_the_top_level_must_be_given(config: dict[str, Any], key: str) -> None:
    del config[key]
    with pytest.raises(ConfigurationError, match=rf"^{key}=\(nothing\): must be given$"):
        schema.read(config)


def test_an_unknown_key_of_the_top_level_is_named(config: dict[str, Any]) -> None:
    with pytest.raises(UnknownKeyError, match=r"^sparsty=1: there is no key 'sparsty'; choices: sparsity, "):
        schema.read(config | {"sparsty": 1})


@pytest.mark.parametrize(
    ("section", "changes", "line"),
    [
        ("criterion", {"variance_weight": -1}, r"criterion\.variance_weight=-1: .*greater than or equal to 0"),
        ("criterion", {"shared": "men"}, r"criterion\.shared=men: .*choices: mean, pooled"),
        ("calibration", {"sampling": "equl"}, r"calibration\.sampling=equl: .*choices: equal, .*proportional"),
        ("calibration", {"length": 1}, r"calibration\.length=1: .*greater than or equal to 2"),
        ("calibration", {"sequences": 1}, r"calibration\.sequences=1: .*number of languages, 2"),
        ("pruner", {"order": "blok"}, r"pruner\.order=blok: .*choices: block, arrival, oneshot"),
        ("pruner", {"batch_size": 0}, r"pruner\.batch_size=0: .*greater than 0"),
        ("evaluation", {"sentences": 0}, r"evaluation\.sentences=0: .*greater than 0"),
        ("evaluation", {"stride": 9999}, r"evaluation\.stride=9999: exceeds evaluation\.window=512"),
        ("model", {"dtype": "float8"}, r"model\.dtype=float8: .*choices: float32, "),
        ("model", {"device": "gpu"}, r"model\.device=gpu: .*choices: cpu, auto, cuda"),
        ("model", {"revison": "x"}, r"model\.revison=x: there is no key 'revison' in 'model'; choices: revision, "),
        ("tracking", {"project": "x"}, r"tracking\.project=x: there is no key 'project' in 'tracking'; choices: none"),
    ],
)
def test_the_components_state_their_own_bounds(
    config: dict[str, Any], section: str, changes: dict[str, object], line: str
) -> None:
    config[section] |= changes
    with pytest.raises(InputError, match=f"^{line}"):
        Parts.of(RunSpec.of(config))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("null", None),
        ("c4", {"_target_": "mwanda.corpora.c4.C4", "documents": 500}),
        ("{choice: c4}", {"_target_": "mwanda.corpora.c4.C4", "documents": 500}),
        ("{choice: c4, documents: 7}", {"_target_": "mwanda.corpora.c4.C4", "documents": 7}),
        ("{choice: local, path: 'a folder, [mine]'}", {"path": "a folder, [mine]"}),
    ],
)
def test_text_for_evaluation_can_be_another_choice(typed: str, expected: dict[str, Any] | None) -> None:
    found = compose.compose([f"evaluation.corpus={typed}"])["evaluation"]["corpus"]
    assert found is None if expected is None else expected.items() <= found.items()


def test_text_for_evaluation_is_that_of_the_run_unless_named(config: dict[str, Any]) -> None:
    parts = Parts.of(RunSpec.of(config))
    assert parts.evaluation_corpus == parts.corpus


def test_text_for_evaluation_can_lie_in_a_folder(config: dict[str, Any], tmp_path: Path) -> None:
    for code in ("eng_Latn", "deu_Latn"):
        (tmp_path / f"{code}.txt").touch()
    config["evaluation"]["corpus"] = {"_target_": "mwanda.corpora.local.Local", "path": str(tmp_path)}
    parts = Parts.of(RunSpec.of(config))
    assert isinstance(parts.evaluation_corpus, Local)
    assert parts.evaluation_corpus.path == str(tmp_path)
    assert parts.corpus.name == "embedded"


@pytest.mark.parametrize("key", ["corpus.name", "evaluation.corpus.name", "pattern.name", "criterion.needs"])
def test_what_the_record_says_of_a_choice_cannot_be_typed(config: dict[str, Any], key: str) -> None:
    *groups, name = key.split(".")
    config["evaluation"]["corpus"] = dict(config["corpus"])
    node = config
    for group in groups:
        node = node[group]
    node[name] = "flores_plus"
    with pytest.raises(UnknownKeyError, match=f"^{key}="):
        Parts.of(RunSpec.of(config))


def test_a_choice_whose_class_was_replaced_does_not_give_its_name(config: dict[str, Any]) -> None:
    config["criterion"] = {"_target_": "mwanda.criteria.wanda.Wanda"}
    spec = RunSpec.of(config, {"criterion": "mwanda", "schedule": "uniform", "langs": "inline", "export": "none"})
    assert spec.choices == {"schedule": "uniform", "langs": "inline", "export": "none"}
    assert spec.choice("criterion", Parts.of(spec).criterion) == "wanda"
    config["export"] = {"_target_": "mwanda.export.masks.Masks"}
    assert RunSpec.of(config, {"export": "none"}).choices == {}


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("c5", r"evaluation\.corpus=c5: .*choices: c4, embedded, flores_plus, local"),
        ("3", r"evaluation\.corpus=3: .*choices: c4, "),
        ("[c4]", r"evaluation\.corpus=\[c4\]: .*choices: c4, "),
        ("{path: x}", r"evaluation\.corpus=None: .*choices: c4, "),
        ("local", r"evaluation\.corpus\.path=\?\?\?: must be given, as evaluation\.corpus\.path=…"),
        ("{choice: local, pth: x}", r"evaluation\.corpus\.pth=\"x\": there is no key 'pth'"),
        ("{choice: local, path: /no/such}", r"evaluation\.corpus\.path=/no/such: there is no such folder$"),
        ("{choice: c4, document: 5}", r"evaluation\.corpus\.document=5: .*choices: documents, "),
        ("{choice: c4, documents: 0}", r"evaluation\.corpus\.documents=0: .*greater than 0"),
    ],
)
def test_text_for_evaluation_is_checked(typed: str, line: str) -> None:
    with pytest.raises(InputError, match=f"^{line}"):
        Parts.of(compose.run_spec([f"evaluation.corpus={typed}", "tracking=none"]))


def test_building_loads_nothing(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    for one in (PretrainedModel, PackagedGemma):
        for method in ("load", "load_tokenizer", "load_config"):
            monkeypatch.setattr(one, method, loaded.append)
    assert [language.code for language in Parts.of(RunSpec.of(config)).languages] == ["eng_Latn", "deu_Latn"]
    assert not loaded


@pytest.mark.parametrize("key", identity.NOT_SEMANTIC)
def test_what_changes_no_number_does_not_change_the_hash(config: dict[str, Any], key: str) -> None:
    assert identity.config_hash(config | {key: "another"}) == identity.config_hash(config)


@pytest.mark.parametrize("key", sorted(set(schema.Settings.model_fields) - set(identity.NOT_SEMANTIC)))
def test_what_changes_the_numbers_changes_the_hash(config: dict[str, Any], key: str) -> None:
    assert identity.config_hash(config | {key: "another"}) != identity.config_hash(config)


def test_the_hash_goes_by_what_a_set_of_languages_comes_to(config: dict[str, Any]) -> None:
    """Also before the run, so that a sweep finds its finished jobs."""
    of = RunSpec.of
    by_code = of(config | {"langs": {"codes": ["swh_Latn"]}})
    by_rule = of(config | {"langs": {"families": ["Bantu"], "available": True}})
    assert by_rule.config_hash == by_code.config_hash != of(config).config_hash
    assert by_rule.exact_hash == by_code.exact_hash
    assert (by_rule.named_languages > 1, by_code.named_languages) == (True, 1)
    drawn = [of(config | {"langs": {"among": "flores_plus", "sample": 9, "seed": seed}}) for seed in (0, 1)]
    assert drawn[0].config_hash_without_seed != drawn[1].config_hash_without_seed
    named, listed = ("xglm30", [language.code for language in sets.language_set("langs", "xglm30").named()])
    hashes = {
        of(config | {"calibration": config["calibration"] | {"languages": each, "sequences": 60}}).config_hash
        for each in (named, listed)
    }
    assert len(hashes) == 1


def test_runs_that_differ_in_nothing_but_the_seed_are_repetitions(config: dict[str, Any]) -> None:
    one, two, other = (RunSpec.of(config | each) for each in ({"seed": 1}, {"seed": 2}, {"seed": 2, "sparsity": 0.25}))
    assert one.config_hash_without_seed == two.config_hash_without_seed != other.config_hash_without_seed
    assert one.config_hash != two.config_hash


def test_a_job_of_a_sweep_is_the_same_run_in_its_folder(config: dict[str, Any], tmp_path: Path) -> None:
    alone = RunSpec.of(config, {"criterion": "mwanda"}, ["typed"])
    swept = alone.in_sweep(tmp_path / "mine" / "job")
    assert (swept.folder, swept.study, swept.settings.resume) == (tmp_path / "mine" / "job", "mine", True)
    assert swept.config == {**alone.config, "output_dir": str(tmp_path / "mine" / "job"), "resume": True}
    assert (swept.config_hash, swept.overrides) == (alone.config_hash, alone.overrides)


WITHIN = [(group, key) for group, keys in identity.NOT_SEMANTIC_WITHIN.items() for key in keys]


@pytest.mark.parametrize(("group", "key"), WITHIN)
def test_how_much_memory_a_run_takes_does_not_change_what_it_is(config: dict[str, Any], group: str, key: str) -> None:
    changed = copy.deepcopy(config)
    changed[group][key] = "another"
    assert identity.config_hash(changed) == identity.config_hash(config)
    assert identity.exact_hash(changed) != identity.exact_hash(
        config
    )  # half a run cannot be taken up with other batches


@pytest.mark.parametrize(
    "keys", ["model.dtype", "model.device", "pruner.order", "calibration.seed", "evaluation.window"]
)
def test_what_changes_numbers_within_a_group_changes_the_hash(config: dict[str, Any], keys: str) -> None:
    group, key = keys.split(".")
    changed = copy.deepcopy(config)
    changed[group][key] = "another"
    assert identity.config_hash(changed) != identity.config_hash(config)


@pytest.mark.parametrize("group", ["model", "corpus"])
def test_a_folder_is_known_by_what_it_holds_and_not_by_where_it_is(
    config: dict[str, Any], group: str, tmp_path: Path
) -> None:
    def of(folder: Path) -> str:
        return identity.config_hash(config | {group: config[group] | {"path": str(folder)}})

    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "file.txt").write_text("some")
    before = of(folder)
    assert of(folder.rename(tmp_path / "two")) == before
    (tmp_path / "two" / ".hidden").write_text("some")
    assert of(tmp_path / "two") == before
    (tmp_path / "two" / "file.txt").write_text("else")
    assert of(tmp_path / "two") != before
    assert of(tmp_path / "nothing there") != of(tmp_path / "nothing here")


def test_a_single_knob_changes_the_hash(config: dict[str, Any]) -> None:
    changed = copy.deepcopy(config)
    changed["criterion"]["variance_weight"] += 1e-9
    assert identity.config_hash(changed) != identity.config_hash(config)


def test_runs_from_before_there_were_solvers_and_weights_have_the_hash_of_today_s_defaults(
    config: dict[str, Any],
) -> None:
    before = copy.deepcopy(config)
    del before["solver"], before["calibration"]["weights"]
    assert schema.read(before) == schema.read(config).model_copy(update={"calibration": before["calibration"]})
    for digest in (identity.config_hash, identity.exact_hash):
        assert digest(before) == digest(config)
        for weights in ("balanced", {"eng_Latn": 2.0}):
            assert digest(config | {"calibration": config["calibration"] | {"weights": weights}}) != digest(config)
        assert digest(config | {"solver": {"_target_": "mwanda.solvers.swap.Swap"}}) != digest(config)


def test_the_order_of_keys_does_not_change_the_hash(config: dict[str, Any]) -> None:
    turned = {key: config[key] for key in reversed(config)}
    turned["criterion"] = dict(reversed(config["criterion"].items()))
    assert identity.config_hash(turned) == identity.config_hash(config)


def test_the_order_of_languages_changes_the_hash(config: dict[str, Any]) -> None:
    turned = config | {"langs": {"codes": config["langs"]["codes"][::-1]}}
    assert identity.config_hash(turned) != identity.config_hash(config)


def test_the_hash_is_sixteen_hexadecimal_digits(config: dict[str, Any]) -> None:
    digits = identity.config_hash(config)
    assert len(digits) == 16
    assert int(digits, 16) >= 0


def test_the_choices_of_a_group_are_its_files() -> None:
    assert conf.choices("pattern") == ["2of4", "4of8", "unstructured"]
    assert conf.choices("no_such_group") == []


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ({"name": "half \ud83d"}, r"^name='half \\ud83d': is no text: it has half a character$"),
        ({"output_dir": "a\0b"}, r"^output_dir='a\\x00b': is no text: it has the character of number 0$"),
        ({"output_dir": "a" * 256}, r"^output_dir=a{60}…: is too long for a file system$"),
        ({"output_dir": "a/" * 2100}, r"^output_dir=.*: is too long for a file system$"),
        ({"output_dir": "~nobody-here/a"}, r"^output_dir=~nobody-here/a: there is no user of that name"),
        (
            {"corpus": {"_target_": "mwanda.corpora.local.Local", "path": "~nobody-here"}},
            r"^corpus\.path=~nobody-here: ",
        ),
        ({"model": {"path": "a" * 5000}}, r"^model\.path=a{60}…: is too long"),
        ({"langs": {"codes": ["\ud83d"]}}, r"^langs\.codes='\\ud83d': is no text"),
        ({"langs": {"\ud83d": 1}}, r"^langs\.\\ud83d='\\ud83d': is no text"),
        ({"seed": 2**63}, r"^seed=9223372036854775808: is too large a number$"),
        (
            {"calibration": {"length": -(10**30)}},
            r"^calibration\.length=-1000000000000000000000000000000: is too large",
        ),
        ({"evaluation": {"corpus": "c4"}}, r"^evaluation\.corpus=c4: must be the name of a choice, or a mapping"),
        ({"evaluation": {"corpus": [1]}}, r"^evaluation\.corpus=\[1\]: must be the name of a choice, or a mapping"),
    ],
)
def test_values_that_nothing_can_hold_are_refused_wherever_they_stand(
    config: dict[str, Any], override: dict[str, Any], reason: str
) -> None:
    for key, value in override.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ConfigurationError, match=reason) as error:
        RunSpec.of(config)
    error.value.args[0].encode()
