"""Checks what was typed as a whole before anything is made or loaded, and chooses who runs it."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mwanda.config.compose import CONFIG_NAME, composed, parsed, unresolved, with_evaluation_corpus
from mwanda.config.identity import RunSpec
from mwanda.errors import ConfigurationError, InputError
from mwanda.system.conf import CONF, program
from mwanda.system.secrets import hide_in_terminal
from mwanda.system.terminal import complain


if TYPE_CHECKING:
    from mwanda.sweep.plan import Plan


EXPERIMENT = "experiment"
HELP = {"--help", "-h"}
SAID_AT_ONCE = {"--version", "--info", "-i", "-c"}
"""Options on which Hydra's parser may end the program: it is asked once, by Hydra."""

ONLY_SHOW = {*HELP, "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}


def main() -> None:
    """Do what was typed behind `python run.py`, or `mwanda-run` where the package is installed.

    Raises:
        SystemExit: with 0 for complete, 1 for a failure, 2 for bad input.
    """
    import hydra

    if HELP & set(sys.argv[1:]):
        sys.argv.append(f"hydra.help.app_name='{shlex.join(program())}'")
    start(hydra.main(config_path=str(CONF), config_name=CONFIG_NAME, version_base="1.3")(_job))


def _job(config: Any) -> None:
    from mwanda import hydra_job  # loads torch, which --help does without

    hydra_job.main(config)


def start(hydra: Callable[[], Any]) -> None:
    """Check the command line, then run what it asks for; exit with 2 on bad input, before any folder is made.

    A single run is done here and a sweep on this machine by mwanda.sweep, through one door. `hydra` is for what Hydra
    alone can do: `--help`, `--cfg` and the like, other launchers and sweepers, another main configuration.
    """
    hide_in_terminal()
    try:
        sys.argv[1:] = with_inline_languages(options_first(sys.argv[1:]))
        asked = None
        if not any(argument.split("=")[0] in ONLY_SHOW for argument in sys.argv[1:]):
            asked = check(sys.argv[1:])
    except InputError as error:
        raise _ended(error) from None
    if asked is None:
        _as_hydra_reads_it()
        hydra()
    elif asked.sweep is None:
        from mwanda.sweep import worker

        raise SystemExit(max(worker.run_spec(spec) for spec in asked.runs))
    else:
        try:
            code = _sweep(asked, hydra)
        except InputError as error:
            raise _ended(error) from None
        raise SystemExit(code)


def _ended(error: InputError) -> SystemExit:
    complain(error)
    return SystemExit(error.exit_code)


def _sweep(asked: "Asked", hydra: Callable[[], Any]) -> int:
    from mwanda.sweep import local, plan, slurm

    settings, planned = asked.runs[0].settings, asked.sweep
    assert planned is not None
    if asked.local:
        return local.go(planned, settings.rerun, settings.sweep.parallel, fail_fast=settings.sweep.fail_fast)
    if settings.rerun == "all":
        plan.clear(planned)
    planned.save()
    _as_hydra_reads_it()
    sys.argv.append(f"sweep.name={planned.name}")
    if asked.slurm:
        return slurm.follow(hydra, planned)
    hydra()
    return 0


def _as_hydra_reads_it() -> None:
    """Write this project's shorthand for the evaluation's corpus as Hydra knows it."""
    short = "evaluation.corpus="
    sys.argv[1:] = [
        part for each in sys.argv[1:] for part in (with_evaluation_corpus([each]) if each.startswith(short) else [each])
    ]


@dataclass(frozen=True)
class Asked:
    """What a command line asks for.

    Args:
        runs: at least one.
        sweep: where the runs of a sweep go, and what is to become of each; None where they leave nothing together.
        local: whether a sweep runs on this machine, and not through another of Hydra's launchers or sweepers.
        slurm: whether submitit sends it to a SLURM cluster.
    """

    runs: list[RunSpec]
    sweep: "Plan | None" = None
    local: bool = True
    slurm: bool = False


def options_first(arguments: Sequence[str]) -> list[str]:
    """Return what was typed with its options before its settings: Hydra takes no setting behind an option."""
    from hydra._internal.utils import get_args_parser

    if any(argument.split("=")[0] in SAID_AT_ONCE for argument in arguments):
        return list(arguments)
    settings = list(get_args_parser().parse_known_intermixed_args(list(arguments))[0].overrides)
    left, options = settings[:], []
    for argument in arguments:
        if left and argument == left[0]:
            left.pop(0)
        elif argument != "--":
            options.append(argument)
    return [*options, *settings]


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


def check(arguments: Sequence[str], *, elsewhere: bool = False, typed: Sequence[str] | None = None) -> Asked | None:
    """Compose and check every run that these arguments ask for; None where Hydra alone can say what they mean.

    Args:
        arguments: as they were typed.
        elsewhere: whether the runs will be on machines with other devices than this one.
        typed: what a sweep is started again with, when not by these arguments to run.py.

    Raises:
        InputError: one of them cannot be run as asked.
    """
    from hydra._internal.utils import get_args_parser
    from hydra.core.hydra_config import HydraConfig

    flags, unknown = get_args_parser().parse_known_intermixed_args(list(arguments))
    if unknown:
        raise InputError(f"{unknown[0]}: there is no such option; settings are written KEY=VALUE, as in sparsity=0.5")
    if flags.config_name or flags.config_path or flags.experimental_rerun:
        return None  # another main configuration than ours; the job checks it
    swept, multirun = of_experiment(flags.overrides)
    sweep, wanted, launchers = flags.multirun or multirun, [], set()
    for overrides in jobs_of([*swept, *flags.overrides, *_search_path(flags.config_dir)], sweep=sweep):
        config, choices = composed(overrides)
        by_slurm = str(HydraConfig.get().launcher._target_).endswith(".SlurmLauncher")
        plain = [each for each in overrides if not each.startswith("hydra") or each.startswith("hydra.searchpath")]
        spec = RunSpec.of(config, choices, plain)
        # These load torch, which what is refused so far does without.
        from mwanda.job.components import Parts
        from mwanda.sweep import plan, slurm
        from mwanda.sweep.plan import Wanted

        export = Parts.of(spec, elsewhere=elsewhere or by_slurm).export
        wanted.append(Wanted(spec, tuple(plain), None if export is None else export.name))
        launchers |= {choices.get("hydra/launcher"), choices.get("hydra/sweeper")}
    runs, local_only = [each.spec for each in wanted], launchers == {"basic"}
    if not sweep and any(_of_hydra(each) for each in flags.overrides):
        return None
    if not sweep or runs[0].settings.mode != "run":
        return Asked(runs)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError("torchrun shares one run among processes, and each of them would start the whole sweep")
    _refuse_folders(flags.overrides, local=local_only)
    if by_slurm:
        slurm.check_array(min(len(runs), HydraConfig.get().sweeper.get("max_batch_size") or len(runs)))
    name = plan.name_of(flags.overrides, wanted, next(iter(_experiments(flags.overrides)), None))
    return Asked(runs, plan.plan(typed or arguments, wanted, name), local=local_only, slurm=by_slurm)


def _search_path(folder: str | None) -> list[str]:
    if not folder:
        return []
    place = Path(folder).resolve()
    if not place.is_dir():
        raise ConfigurationError("--config-dir", folder, "there is no such folder")
    quoted = str(place).replace("'", "\\'")
    return [f"hydra.searchpath=['file://{quoted}']"]


def _of_hydra(override: str) -> bool:
    """Return whether it sets something that Hydra does around a run, such as where its folder is."""
    key = override.lstrip("+~").partition("=")[0]
    return key.startswith(("hydra.", "hydra/")) and not key.startswith(("hydra.searchpath", "hydra.launcher"))


def _refuse_folders(overrides: Sequence[str], *, local: bool) -> None:
    refused = ("output_dir", "resume", *(("hydra.sweep.dir", "hydra.sweep.subdir", "hydra.run.dir") if local else ()))
    for key in refused:
        typed = next((each.partition("=")[2] for each in overrides if each.split("=")[0] == key), None)
        if typed is not None:
            raise ConfigurationError(key, typed, "is not used by a sweep, which has sweep.folder, sweep.name and rerun")


def of_experiment(overrides: Sequence[str]) -> tuple[list[str], bool]:
    """Return what `+experiment=…` sweeps over, and whether it makes a sweep of the run.

    Raises:
        InputError: there is no such experiment.
    """
    from omegaconf import OmegaConf

    chosen = _of_key(EXPERIMENT, overrides)
    for text in chosen:
        names = experiments()
        name = text.partition("=")[2]
        if name not in names:
            raise ConfigurationError(f"+{EXPERIMENT}", name, "there is no such choice", names)
        if not text.startswith("+"):
            raise ConfigurationError(EXPERIMENT, name, f"is added, not replaced: write +{EXPERIMENT}={name}")
    hydra = unresolved(chosen).hydra if chosen else None
    if hydra is None or not OmegaConf.select(hydra, "sweeper.params"):
        return [], False
    return [f"{key}={value}" for key, value in hydra.sweeper.params.items()], str(hydra.mode) == "RunMode.MULTIRUN"


def experiments() -> list[str]:
    """Return the names of all experiments, with the folders that they are in."""
    folder = (CONF / EXPERIMENT).resolve()  # pathlib follows no link below where it starts
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def _of_key(key: str, overrides: Sequence[str]) -> list[str]:
    return [text for text, each in zip(overrides, parsed(overrides), strict=True) if each.key_or_group == key]


def _experiments(overrides: Sequence[str]) -> list[str]:
    return [text.partition("=")[2] for text in _of_key(EXPERIMENT, overrides)]


def jobs_of(overrides: Sequence[str], *, sweep: bool) -> list[list[str]]:
    """Return the overrides of each job; without a sweep there is one.

    Raises:
        InputError: an override cannot be read, or has several values without a sweep.
    """
    read = parsed(overrides)
    if not sweep:
        for override in read:
            if override.is_sweep_override():
                key, value = override.get_key_element(), override.get_value_string()
                raise ConfigurationError(key, value, "several values make a sweep; add --multirun")
        return [list(overrides)]
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (jobs,) = BasicSweeper.split_arguments(read, max_batch_size=None)
    return [list(map(str, job)) for job in jobs]
