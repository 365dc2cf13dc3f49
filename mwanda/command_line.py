"""Checks the command line as a whole before Hydra runs anything, and says in one line what is wrong with it."""

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mwanda.errors import ConfigurationError, InputError, UnknownKeyError


CONFIG_NAME = "config"
ONLY_SHOW = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}


def start(run: Callable[[], Any]) -> None:
    """Check the command line, then hand over to Hydra; exit with 2 on bad input, before any folder is made."""
    try:
        sys.argv[1:] = with_inline_languages(sys.argv[1:])
        if not any(argument.split("=")[0] in ONLY_SHOW for argument in sys.argv[1:]):
            check(sys.argv[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    run()


def with_inline_languages(arguments: Sequence[str]) -> list[str]:
    """Rewrite `langs=[a,b]` (which Hydra would take for two files) into the choice `inline` and its codes.

    Raises:
        ConfigurationError: a sweep mixes lists with names of choices.
    """
    rewritten: list[str] = []
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if key != "langs" or not separator or "[" not in value:
            rewritten.append(argument)
            continue
        if not re.fullmatch(r"\[[^\[\]]*\](\s*,\s*\[[^\[\]]*\])*", value.strip()):
            raise ConfigurationError("langs", value, "a sweep takes either lists of codes or names of choices")
        rewritten += ["langs=inline", f"langs.codes={value}"]
    return rewritten


def check(arguments: Sequence[str]) -> None:
    """Compose and check the configuration of every job that these arguments ask for.

    Raises:
        InputError: one of them cannot be run as asked.
    """
    from hydra._internal.utils import get_args_parser

    flags = get_args_parser().parse_args(list(arguments))
    for overrides in _jobs(flags.overrides, sweep=flags.multirun):
        config = compose(overrides)
        check_configuration(config)


def check_configuration(config: dict[str, Any]) -> None:
    """Raise InputError when a resolved configuration cannot be run; builds every part but loads no model."""
    from mwanda.job import Parts

    Parts.of(config)


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the resolved configuration of one job as a plain mapping.

    Raises:
        InputError: a group, choice or key does not exist, or a value must be given.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from mwanda.schema import CONF

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra_compose(CONFIG_NAME, list(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            return resolved(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
    except MissingConfigException as error:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        raise ConfigurationError(group or "config", choice, "there is no such choice", error.options or ()) from None
    except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
        raise _explained(error, overrides) from None


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


def _jobs(overrides: Sequence[str], *, sweep: bool) -> list[list[str]]:
    """Return the overrides of each job; without a sweep there is one."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise InputError(" ".join(str(error).split())) from None
    if not sweep:
        for override in parsed:
            if override.is_sweep_override():
                key, value = override.get_key_element(), override.get_value_string()
                raise ConfigurationError(key, value, "several values make a sweep; add --multirun")
        return [list(overrides)]
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(map(str, job)) for job in jobs]


def _explained(error: Exception, overrides: Sequence[str]) -> InputError:
    """Turn Hydra's several lines into one."""
    text = " ".join(str(error).split())
    missing = re.search(r"Could not override '([^']+)'", text)
    if missing:
        key = missing.group(1)
        value = next((each.partition("=")[2] for each in overrides if each.split("=")[0].lstrip("+~") == key), "")
        return UnknownKeyError(key, value, _keys_beside(key, overrides))
    return InputError(text)


def _keys_beside(key: str, overrides: Sequence[str]) -> list[str]:
    """Return the keys that exist where `key` was looked for."""
    from omegaconf import OmegaConf

    others = [each for each in overrides if each.split("=")[0].lstrip("+~") != key]
    node: Any = _unresolved(others)
    for part in key.split(".")[:-1]:
        node = node.get(part) if OmegaConf.is_dict(node) else None
    return [str(name) for name in node if not str(name).startswith("_")] if OmegaConf.is_dict(node) else []


def _unresolved(overrides: Sequence[str]) -> Any:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException

    from mwanda.schema import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return hydra_compose(CONFIG_NAME, list(overrides))
        except HydraException:  # a second typo must not hide the first
            return hydra_compose(CONFIG_NAME)
