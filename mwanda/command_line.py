"""Checks the command line as a whole before Hydra runs anything, and says in one line what is wrong with it."""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mwanda.errors import ConfigurationError, InputError, UnknownKeyError, nearest_choices


if TYPE_CHECKING:
    from mwanda.job import Parts
    from mwanda.sweep import Plan, Wanted


CONFIG_NAME = "config"
EXPERIMENT = "experiment"
MULTIRUN = {"--multirun", "-m"}
ONLY_SHOW = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}


def start(run: Callable[[], Any]) -> None:
    """Check the command line, then hand over to Hydra; exit with 2 on bad input, before any folder is made.

    A sweep on this machine is run by mwanda.sweep, which isolates its jobs; Hydra's own launcher runs them in one
    process. A sweep by another launcher is planned here and handed over.
    """
    try:
        sys.argv[1:] = with_inline_languages(sys.argv[1:])
        asked = None
        if not any(argument.split("=")[0] in ONLY_SHOW for argument in sys.argv[1:]):
            asked = check(sys.argv[1:])
    except InputError as error:
        print("error:", *str(error).split(), file=sys.stderr)  # a value may hold line breaks
        raise SystemExit(error.exit_code) from None
    if asked is not None:
        from mwanda import schema, slurm, sweep

        settings = schema.read(asked.jobs[0].config)
        if asked.local:
            raise SystemExit(
                sweep.go(asked.plan, settings.rerun, settings.sweep.parallel, fail_fast=settings.sweep.fail_fast)
            )
        if settings.rerun == "all":
            sweep.clear(asked.plan)
        asked.plan.save()
        sys.argv.append(f"sweep.name={asked.plan.name}")
        if asked.slurm:
            raise SystemExit(slurm.follow(run, asked.plan))
    elif MULTIRUN & set(sys.argv[1:]):
        # The modes that leave nothing: what Hydra writes of a sweep goes where nobody looks.
        with tempfile.TemporaryDirectory(prefix="mwanda-hydra-") as folder:
            sys.argv.append(f"hydra.sweep.dir={folder}")
            run()
            return
    run()


@dataclass(frozen=True)
class Sweep:
    """A sweep that a command line asks for.

    Args:
        jobs: its runs.
        plan: where they go, and what is to become of each.
        local: whether it runs on this machine, and not through another of Hydra's launchers or sweepers.
        slurm: whether submitit sends it to a SLURM cluster.
    """

    jobs: "list[Wanted]"
    plan: "Plan"
    local: bool
    slurm: bool


def with_inline_languages(arguments: Sequence[str]) -> list[str]:
    """Rewrite `langs=[a,b]` (which Hydra would take for two files) into the choice `inline` and its codes.

    Raises:
        ConfigurationError: a sweep mixes lists with names of choices.
    """
    rewritten: list[str] = []
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if key != "langs" or not separator or "[" not in value or value.count("[") != value.count("]"):
            rewritten.append(argument)
            continue
        if not re.fullmatch(r"\[[^\[\]]*\](\s*,\s*\[[^\[\]]*\])*", value.strip()):
            raise ConfigurationError("langs", value, "a sweep takes lists of codes or names of choices, not both")
        rewritten += ["langs=inline", f"langs.codes={value}"]
    return rewritten


def check(arguments: Sequence[str], *, elsewhere: bool = False) -> Sweep | None:
    """Compose and check the configuration of every job that these arguments ask for; return the sweep if it is one.

    Args:
        arguments: as they were typed.
        elsewhere: whether the jobs will run on machines with other devices than this one.

    Raises:
        InputError: one of them cannot be run as asked.
    """
    from hydra._internal.utils import get_args_parser
    from hydra.core.hydra_config import HydraConfig

    from mwanda import slurm
    from mwanda.sweep import Wanted, name_of, plan

    flags, unknown = get_args_parser().parse_known_args(list(arguments))
    if unknown:
        raise InputError(f"{unknown[0]}: there is no such option; settings are written KEY=VALUE, as in sparsity=0.5")
    if flags.config_name or flags.config_path or flags.experimental_rerun:
        return None  # another main configuration than ours; the job checks it
    more = []
    if flags.config_dir:
        folder = Path(flags.config_dir).resolve()
        if not folder.is_dir():
            raise ConfigurationError("--config-dir", flags.config_dir, "there is no such folder")
        quoted = str(folder).replace("'", "\\'")
        more = [f"hydra.searchpath=['file://{quoted}']"]
    swept, multirun = _of_experiment(flags.overrides)
    sweep, jobs, launchers = flags.multirun or multirun, [], set()
    for overrides in _jobs([*swept, *flags.overrides, *more], sweep=sweep):
        config, names = composed(overrides)
        by_slurm = str(HydraConfig.get().launcher._target_).endswith(".SlurmLauncher")
        export = check_configuration(config, elsewhere=elsewhere or by_slurm).export
        plain = [each for each in overrides if not each.startswith("hydra") or each.startswith("hydra.searchpath")]
        jobs.append(Wanted(tuple(plain), config, None if export is None else export.name))
        launchers |= {names.get("hydra/launcher"), names.get("hydra/sweeper")}
    if not sweep or jobs[0].config["mode"] != "run":
        return None
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError("torchrun shares one run among processes, and each of them would start the whole sweep")
    local = launchers == {"basic"}
    refused = ("output_dir", "resume", *(("hydra.sweep.dir", "hydra.sweep.subdir", "hydra.run.dir") if local else ()))
    for key in refused:
        typed = next((each.partition("=")[2] for each in flags.overrides if each.split("=")[0] == key), None)
        if typed is not None:
            raise ConfigurationError(key, typed, "is not used by a sweep, which has sweep.folder, sweep.name and rerun")
    if by_slurm:
        slurm.check_array(min(len(jobs), HydraConfig.get().sweeper.get("max_batch_size") or len(jobs)))
    name = name_of(flags.overrides, jobs, next(iter(_experiments(flags.overrides)), None))
    return Sweep(jobs, plan(arguments, jobs, name), local=local, slurm=by_slurm)


def check_configuration(config: dict[str, Any], *, elsewhere: bool = False) -> "Parts":
    """Raise InputError when a resolved configuration cannot be run, here or elsewhere; loads no model."""
    from mwanda import job

    return job.Parts.of(job.elsewhere(config) if elsewhere or config["mode"] == "prepare" else config)


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

    from mwanda.schema import CONF

    _check_choices(overrides)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra_compose(CONFIG_NAME, list(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            names = {str(group): str(choice) for group, choice in config.hydra.runtime.choices.items()}
            return resolved(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])), names
    except MissingConfigException as error:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if choice == "submitit_slurm":
            raise ConfigurationError(group, "slurm", "needs a package: pip install 'mwanda[slurm]'") from None
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


def _of_experiment(overrides: Sequence[str]) -> tuple[list[str], bool]:
    """Return what `+experiment=…` sweeps over, and whether it makes a sweep of the run.

    Raises:
        InputError: there is no such experiment.
    """
    from omegaconf import OmegaConf

    from mwanda.schema import CONF

    chosen = _of_key(EXPERIMENT, overrides)
    for text in chosen:
        names = sorted(path.stem for path in (CONF / EXPERIMENT).glob("*.yaml"))
        name = text.partition("=")[2]
        if name not in names:
            raise ConfigurationError(f"+{EXPERIMENT}", name, "there is no such choice", names)
        if not text.startswith("+"):
            raise ConfigurationError(EXPERIMENT, name, f"is added, not replaced: write +{EXPERIMENT}={name}")
    hydra = _unresolved(chosen).hydra if chosen else None
    if hydra is None or not OmegaConf.select(hydra, "sweeper.params"):
        return [], False
    return [f"{key}={value}" for key, value in hydra.sweeper.params.items()], str(hydra.mode) == "RunMode.MULTIRUN"


def _of_key(key: str, overrides: Sequence[str]) -> list[str]:
    return [text for text, each in zip(overrides, _parsed(overrides), strict=True) if each.key_or_group == key]


def _experiments(overrides: Sequence[str]) -> list[str]:
    return [text.partition("=")[2] for text in _of_key(EXPERIMENT, overrides)]


def _jobs(overrides: Sequence[str], *, sweep: bool) -> list[list[str]]:
    """Return the overrides of each job; without a sweep there is one."""
    parsed = _parsed(overrides)
    if not sweep:
        for override in parsed:
            if override.is_sweep_override():
                key, value = override.get_key_element(), override.get_value_string()
                raise ConfigurationError(key, value, "several values make a sweep; add --multirun")
        return [list(overrides)]
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(map(str, job)) for job in jobs]


def _parsed(overrides: Sequence[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, parsed = OverridesParser.create(), []
    for override in overrides:
        with suppress(HydraException):
            parsed.append(parser.parse_override(override))
            if parsed[-1].key_or_group:
                continue
        raise InputError(f"{override}: cannot be read as KEY=VALUE; are all brackets and quotes closed?")
    return parsed


def _check_choices(overrides: Sequence[str]) -> None:
    """Refuse what Hydra takes for a group but this project does not: a list, a mapping, null, + or ~."""
    from mwanda.schema import GROUPS, Settings, choices

    for override in _parsed(overrides):
        key = override.key_or_group
        if override.is_delete() and key in Settings.model_fields:
            raise ConfigurationError(key, "(nothing)", "must be given")
        if key not in (*GROUPS, "langs"):
            continue
        value = override.get_value_string()
        if not isinstance(override.value(), str | int | float):
            raise ConfigurationError(key, value, "must name one choice", choices(key))
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
    node: Any = _unresolved(others)
    found: list[str] = []
    for part in key.split(".")[:-1]:
        if not OmegaConf.is_dict(node) or part not in node:
            break
        found, node = [*found, part], node._get_node(part)
    names = [str(name) for name in node if not str(name).startswith("_")] if OmegaConf.is_dict(node) else []
    return ".".join(found), names


def _unresolved(overrides: Sequence[str]) -> Any:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException

    from mwanda.schema import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return hydra_compose(CONFIG_NAME, list(overrides), return_hydra_config=True)
        except HydraException:  # a second typo must not hide the first
            return hydra_compose(CONFIG_NAME, return_hydra_config=True)
