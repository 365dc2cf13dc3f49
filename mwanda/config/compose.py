"""Composes a configuration from the choices and values that were typed, and says in one line what is wrong with it."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from mwanda.config import files
from mwanda.config.identity import EVALUATION_CORPUS, RunSpec
from mwanda.config.schema import GROUPS, PRESETS, Settings
from mwanda.errors import ConfigurationError, InputError, UnknownKeyError, nearest_choices
from mwanda.languages.sets import refuse_listed_elsewhere
from mwanda.system.conf import CONF, choices


CONFIG_NAME = "config"

LONGEST_OVERRIDE, LONGEST_KEY = 1 << 15, 80
"""Characters of what is typed: Hydra's parser takes the square of their number."""


def run_spec(overrides: Sequence[str]) -> RunSpec:
    """Return the run that these overrides ask for.

    Raises:
        InputError: a group, choice or key does not exist, a value must be given, or languages come to nothing.
    """
    config, chosen = composed(overrides)
    return RunSpec.of(config, chosen, overrides)


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the resolved configuration of one job as a plain mapping.

    Raises:
        InputError: a group, choice or key does not exist, or a value must be given.
    """
    return composed(overrides)[0]


def composed(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the resolved configuration of one job as a plain mapping, and the name of each group's choice.

    Raises:
        InputError: a group, choice or key does not exist, or a value must be given.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    overrides = with_evaluation_corpus(overrides)
    _check_choices(overrides)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            files.remember()
            config = hydra_compose(CONFIG_NAME, list(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            chosen = {str(group): str(choice) for group, choice in config.hydra.runtime.choices.items()}
            return resolved(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])), chosen
    except MissingConfigException as error:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if choice == "submitit_slurm":
            raise ConfigurationError(group, "slurm", "needs a package: pip install 'mwanda[slurm]'") from None
        raise ConfigurationError(group or "config", choice, "there is no such choice", error.options or ()) from None
    except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
        raise _explained(error, overrides) from None
    except ValueError as error:  # Hydra's, of a group that is given something else than a name
        raise InputError(" ".join(str(error).split())) from None


def resolved(config: Any) -> dict[str, Any]:
    """Return a composed configuration as a plain mapping, every interpolation resolved.

    Raises:
        ConfigurationError: a value that must be given is missing.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue

    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        raise ConfigurationError(key, "???", f"must be given, as {key}=…") from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def with_evaluation_corpus(overrides: Sequence[str]) -> list[str]:
    """Return overrides in which `evaluation.corpus=NAME` is Hydra's own `corpus@evaluation.corpus=NAME`.

    `evaluation.corpus={choice: NAME, KEY: VALUE}` gives keys of that corpus in the same breath.

    Raises:
        ConfigurationError: there is no such corpus.
    """
    rewritten: list[str] = []
    for text, override in zip(overrides, parsed(overrides), strict=True):
        given = _second_corpus(override)
        if given is None:
            rewritten.append(text)
            continue
        choice = given.pop("choice", None)
        if not override.is_sweep_override() and choice not in choices("corpus"):
            raise ConfigurationError("evaluation.corpus", choice, "there is no such choice", choices("corpus"))
        rewritten.append(f"{EVALUATION_CORPUS}={choice}")
        rewritten += [f"evaluation.corpus.{key}={_quoted(value)}" for key, value in given.items()]
    return rewritten


def _second_corpus(override: Any) -> dict[str, Any] | None:
    """Return choice and keys of the corpus that an override gives the evaluation, or None where it does not."""
    if override.key_or_group != "evaluation.corpus" or override.is_delete():
        return None
    if override.is_sweep_override():
        return {"choice": override.get_value_string()}
    value = override.value()
    if isinstance(value, dict):
        return {str(key): each for key, each in value.items()}
    return None if value is None else {"choice": override.get_value_string()}


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def parsed(overrides: Sequence[str]) -> list[Any]:
    """Return overrides as Hydra reads them.

    Raises:
        InputError: one cannot be read.
    """
    from hydra.errors import HydraException

    parsed = []
    for override in overrides:
        if len(override) > LONGEST_OVERRIDE:
            key = override.partition("=")[0][:LONGEST_KEY]
            raise InputError(
                f"{key}: {len(override):,} characters are too many for the command line; write them to a file "
                f"FOLDER/{key.partition('.')[0]}/NAME.yaml and add --config-dir FOLDER"
            )
        with suppress(HydraException):
            parsed.append(_parsed(override))
            if parsed[-1].key_or_group:
                continue
        raise InputError(f"{override}: cannot be read as KEY=VALUE; are all brackets and quotes closed?")
    return parsed


@lru_cache(maxsize=1024)
def _parsed(override: str) -> Any:
    """Return one override as Hydra reads it; the jobs of a sweep share most of theirs, and nobody changes one."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(override)


def _check_choices(overrides: Sequence[str]) -> None:
    """Refuse what Hydra takes for a group but this project does not: a list, a mapping, null, + or ~.

    Sets of languages that are listed elsewhere are refused as well.
    """
    for override in parsed(overrides):
        key = override.key_or_group
        if override.is_delete() and key in Settings.model_fields:
            raise ConfigurationError(key, "(nothing)", "must be given")
        if key not in (*GROUPS, *PRESETS, "langs") or override.package is not None:
            continue
        value = override.get_value_string()
        if not isinstance(override.value(), str):
            raise ConfigurationError(key, value, "must name one choice", choices(key))
        if key == "langs":
            refuse_listed_elsewhere(key, value)
        if override.is_add():
            raise ConfigurationError(key, value, f"a choice is replaced, not added: write {key}={value}")


def _explained(error: Exception, overrides: Sequence[str]) -> InputError:
    """Turn Hydra's several lines into one."""
    text = " ".join(str(error).split())
    missing = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text)
    full_key = getattr(error, "full_key", None)
    key = missing.group(1) if missing else str(full_key or "")
    if not key:
        return InputError(text)
    value = next((each.partition("=")[2] for each in overrides if each.split("=")[0].lstrip("+~") == key), "")
    if not missing:
        return ConfigurationError(key, value, str(getattr(error, "msg", text)).splitlines()[0])
    parent, valid = _deepest_parent(key, overrides)
    part = key.removeprefix(f"{parent}.").split(".")[0]
    if key == f"{parent}.{part}".strip("."):
        return UnknownKeyError(key, value, valid)
    return ConfigurationError(
        key, value, f"there is no key '{part}'; choices: {', '.join(nearest_choices(part, valid))}"
    )


def _deepest_parent(key: str, overrides: Sequence[str]) -> tuple[str, list[str]]:
    """Return the longest part of `key` that exists, and the keys in it."""
    from omegaconf import OmegaConf

    others = [each for each in overrides if each.split("=")[0].lstrip("+~") != key]
    node: Any = unresolved(others)
    found: list[str] = []
    for part in key.split(".")[:-1]:
        if not OmegaConf.is_dict(node) or part not in node:
            break
        found, node = [*found, part], node._get_node(part)
    names = [str(name) for name in node if not str(name).startswith("_")] if OmegaConf.is_dict(node) else []
    return ".".join(found), names


def unresolved(overrides: Sequence[str]) -> Any:
    """Return the composed configuration, Hydra's own part included, with its interpolations."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException

    with initialize_config_dir(str(CONF), version_base="1.3"):
        files.remember()
        try:
            return hydra_compose(CONFIG_NAME, list(overrides), return_hydra_config=True)
        except HydraException:  # a second typo must not hide the first
            return hydra_compose(CONFIG_NAME, return_hydra_config=True)
