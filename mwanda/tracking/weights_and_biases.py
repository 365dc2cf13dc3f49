"""Weights & Biases, as a mirror of results.json that can neither fail nor delay the job."""

import contextlib
import logging
import os
import re
import ssl
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import getproxies, urlopen

from annotated_types import Gt

from mwanda.system.secrets import hidden, hidden_within
from mwanda.tracking.background import Background
from mwanda.tracking.base import RunIdentity
from mwanda.tracking.files import Kept, made, used
from mwanda.tracking.plain import plain
from mwanda.tracking.summary import LANGUAGE_COLUMNS, LAYER_COLUMNS, language_rows, layer_rows, single_values


if TYPE_CHECKING:
    import wandb


logger = logging.getLogger(__name__)

# No output in the terminal, and no upload of code, git diff or host name; WANDB_SILENT, WANDB_CONSOLE,
# WANDB_DISABLE_GIT … in the environment win, so whoever wants one of these can have it.
DISCREET: dict[str, Any] = {
    "silent": True,
    "quiet": True,
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "save_code": False,
    "host": "",
}
NOT_OF_HERE: dict[str, Any] = {"x_disable_stats": True, "x_disable_meta": True, "x_save_requirements": False}
LONGEST_TAG = 64
LONGEST_NAME = 128
BLOCK = "block/index"
CONNECTION_SECONDS = 2.0
"""For which a server is given time to say anything at all."""

LOCAL_SECONDS = 60.0
"""For which the end of the job waits while wandb starts, or writes its own files."""


@dataclass
class WeightsAndBiases:
    """One run per job, with every call to wandb on a background thread; what goes wrong there costs one warning.

    The API key is read by wandb itself, from WANDB_API_KEY or a stored login, never from the configuration.

    Args:
        project: the project of the run.
        entity: user or team; None is wandb's default.
        mode: `auto` is WANDB_MODE if that is set, else online when there is a key and the server can be reached, else
            offline, from where `python -m mwanda.sync` sends it; what is given here wins over WANDB_MODE.
        group: the group of the run in place of the job's own (the name of its sweep).
        tags: added to the job's own tags.
        finish_timeout: seconds that a job waits for the server at most, in all: at its end, for what was not sent
            before. What is left stays in the folder of the run.
    """

    project: str = "mwanda"
    entity: str | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    group: str | None = None
    tags: Sequence[str] = ()
    finish_timeout: Annotated[float, Gt(0)] = 4.0

    def __post_init__(self) -> None:
        self._background: Background | None = None
        self._mirror: Mirror | None = None

    def start(self, run: RunIdentity, config: Mapping[str, Any]) -> None:
        """Open the run with its complete configuration, which is never changed later."""
        if self.mode == "disabled":
            return
        self._mirror = Mirror(self, run, run.folder)
        self._background = Background("tracking", _warn)
        self._background.submit(partial(self._mirror.open, plain(config)))

    def log_stage(self, stage: str, seconds: float) -> None:
        """Log `seconds/STAGE`."""
        if self._background and self._mirror:
            self._background.submit(partial(self._mirror.log_stage, stage, seconds))

    def log_results(self, results: Mapping[str, Any]) -> None:
        """Log single values as the run's summary, languages and blocks as tables and charts, and files as artifacts."""
        if self._background and self._mirror:
            self._background.submit(partial(self._mirror.log_results, plain(results)))

    def finish(self, failed: bool = False) -> None:
        """Close the run, and wait for that `finish_timeout` seconds at most."""
        background, mirror, self._background, self._mirror = self._background, self._mirror, None, None
        if background and mirror:
            self._close(background, mirror, failed)

    def _close(self, background: Background, mirror: "Mirror", failed: bool) -> None:
        began = monotonic()

        def deadline() -> float:
            asked = mirror.asked_server
            return began + LOCAL_SECONDS if asked is None else max(began, asked) + self.finish_timeout

        try:
            if not background.close(partial(mirror.close, failed), deadline):
                logger.warning(
                    "Weights & Biases did not finish within %g s (tracking.finish_timeout); "
                    "'python -m mwanda.sync %s' sends the run from its result files",
                    LOCAL_SECONDS if mirror.asked_server is None else self.finish_timeout,
                    mirror.identity.folder,
                )
        finally:
            if background.failed:
                _do_not_wait_at_exit()


def send(
    options: WeightsAndBiases,
    identity: RunIdentity,
    config: Mapping[str, Any],
    results: Mapping[str, Any],
    place: Path,
    seconds: float,
) -> None:
    """Send a run that has ended, and wait for that.

    Args:
        options: where it goes.
        identity: the run.
        config: its configuration.
        results: what its results.json holds.
        place: where wandb puts its own files.
        seconds: for which to wait at most.

    Raises:
        OSError: the server does not take it, or not in time.
    """
    errors: list[BaseException] = []
    mirror = Mirror(options, identity, place, live=False)
    background = Background("sync", errors.append)
    background.submit(partial(mirror.open, plain(config)))
    complete = results.get("status") == "complete"
    if complete:  # what a job logs: only rows that are always the same have a step that is always the same
        for stage, taken in (results.get("timing") or {}).items():
            background.submit(partial(mirror.log_stage, stage, taken))
    background.submit(partial(mirror.log_results, plain(results)))
    until = monotonic() + seconds
    ended = background.close(partial(mirror.close, not complete), lambda: until)
    if background.failed:
        _do_not_wait_at_exit()
    if errors:
        raise OSError(f"{identity.folder}: {hidden(_first_line(errors[0]))}")
    if not ended:
        raise OSError(f"{identity.folder}: Weights & Biases did not take it within {seconds:g} s (--timeout)")


class Mirror:
    """The only code that touches wandb; any of its calls may raise, or hang.

    What it logs depends on the results alone, and each row has a step of its own: a row that the server has already is
    not sent again, so that a run arrives once however often it is sent.

    Args:
        options: where the run goes, and how.
        identity: the run.
        place: where wandb puts its own files.
        live: whether the run is running, here: else this machine's load is none of its.
    """

    def __init__(self, options: WeightsAndBiases, identity: RunIdentity, place: Path, *, live: bool = True) -> None:
        self.options, self.identity, self._place, self._live = options, identity, place, live
        self.run: wandb.Run | None = None
        self.asked_server: float | None = None
        """When a server was first asked that still is; None where none is waited for."""
        self._step = 0
        self._mode = ""

    def open(self, config: Mapping[str, Any]) -> None:
        """Open the run.

        Raises:
            RuntimeError: it shall be online, and there is no key.
        """
        import wandb

        # wandb stores the command line; everybody else has read it by now.
        sys.argv[:] = hidden_within(sys.argv)
        discreet = {key: value for key, value in DISCREET.items() if f"WANDB_{key.upper()}" not in os.environ}
        configured = wandb.setup(wandb.Settings(**discreet)).settings
        tags = dict.fromkeys(hidden(tag)[:LONGEST_TAG] for tag in (*self.identity.tags, *self.options.tags) if tag)
        self.asked_server = monotonic()
        self._mode = mode = _choose_mode(self.options.mode, configured)
        if mode != "online":
            self.asked_server = None
        named = {
            "project": self.options.project,
            "entity": self.options.entity,
            "name": self.identity.name,
            "group": self.options.group or self.identity.group,
        }
        self.run = wandb.init(
            **hidden_within(named),
            dir=self._place.absolute(),
            id=self._id,
            job_type=self.identity.job_type,
            tags=list(tags),
            config=dict(config),
            mode=mode,
            resume="allow",
            # A run that is still open, here or in a user's own code, is neither returned nor closed.
            reinit="create_new",
            settings=wandb.Settings(**discreet, **({} if self._live else NOT_OF_HERE)),
        )
        # Blocks are the x axis of their sparsity, whatever the step.
        self.run.define_metric(BLOCK, hidden=True)
        self.run.define_metric("block/*", step_metric=BLOCK)
        if self.run.url:
            logger.info("Weights & Biases: %s", self.run.url)

    def log_stage(self, stage: str, seconds: float) -> None:
        """Log how long a stage took."""
        self._log({f"seconds/{stage}": seconds})

    def log_results(self, results: Mapping[str, Any]) -> None:
        """Log what results.json holds, then the files."""
        assert self.run is not None
        self.run.summary.update(single_values(results))
        if results.get("status") == "complete":  # other rows would have the steps that these will have
            self._log_rows(results)
        if self._mode == "disabled":
            return
        place = self._place / "wandb" / "kept"
        for kept in made(self._id, results, self.identity.folder, place):
            self.run.log_artifact(_artifact(kept))
        if self._mode == "online":  # wandb knows no use of anything offline; mwanda.sync makes up for it
            for kept in used(results, place):
                self.run.use_artifact(_artifact(kept))

    def _log_rows(self, results: Mapping[str, Any]) -> None:
        for layer, target, achieved in layer_rows(results):
            self._log({BLOCK: layer, "block/target": target, "block/achieved": achieved})
        shown = {**_languages(language_rows(results)), **_layers(layer_rows(results))}
        if shown:
            self._log(shown)

    def close(self, failed: bool) -> None:
        """Close the run, and wait until everything is sent or stored."""
        if self.run is None:
            return
        self.run.finish(exit_code=int(failed))
        if self.run.offline:
            logger.info("Weights & Biases is offline; 'python -m mwanda.sync %s' sends the run", self.identity.folder)

    @property
    def _id(self) -> str:
        return re.sub(r"[/\\#?%:]", "-", self.identity.run_id)

    def _log(self, row: dict[str, Any]) -> None:
        assert self.run is not None
        self.run.log(row, step=self._step)
        self._step += 1


def _artifact(kept: Kept) -> "wandb.Artifact":
    import wandb

    artifact = wandb.Artifact(
        re.sub(r"[^\w.-]+", "-", hidden(kept.name))[:LONGEST_NAME], kept.kind, metadata=plain(kept.about)
    )
    for file in kept.files:
        # As it is, where it lies: a copy would go to a folder that is none of the run's.
        artifact.add_file(str(file), skip_cache=True, policy="immutable")
    return artifact


def _languages(rows: list[list[Any]]) -> dict[str, Any]:
    import wandb

    if not rows:
        return {}
    table = wandb.Table(columns=list(LANGUAGE_COLUMNS), data=rows)
    title = "Perplexity, pruned over dense"
    return {"languages": table, "ratio_per_language": wandb.plot.bar(table, "language", "ratio", title=title)}


def _layers(rows: list[list[Any]]) -> dict[str, Any]:
    import wandb

    if not rows:
        return {}
    layers, targets, achieved = zip(*rows, strict=True)
    chart = wandb.plot.line_series(
        xs=layers, ys=[targets, achieved], keys=["target", "achieved"], title="Sparsity per block", xname="block"
    )
    return {"layers": wandb.Table(columns=list(LAYER_COLUMNS), data=rows), "sparsity_per_layer": chart}


def _choose_mode(wanted: str, configured: "wandb.Settings") -> Any:
    import wandb

    if wanted in ("offline", "disabled"):
        return wanted
    if wanted == "auto" and configured.mode not in ("online", "run"):
        return configured.mode
    # Without this check, wandb would ask for a key in the terminal.
    has_key = wandb.login(prompt=False, verify=False)
    if wanted == "online" and not has_key:
        raise RuntimeError("tracking.mode=online needs WANDB_API_KEY or 'wandb login', and no WANDB_MODE against it")
    if wanted == "auto" and has_key and not _reachable(configured):
        logger.warning("Weights & Biases: no answer from %s, so the run is kept offline", configured.base_url)
        return "offline"
    return "online" if has_key else "offline"


def _reachable(configured: "wandb.Settings") -> bool:
    """Say whether the server answers; one that does not would be tried for minutes, with nothing stored here.

    Computing nodes often have a key but no way out.
    """
    server = urlsplit(configured.base_url)
    if getproxies().keys() & {server.scheme, "all"} or configured.http_proxy or configured.https_proxy:
        return True
    answers: list[bool] = []
    # On a thread, as a limit on each reading would let through a server that sends a byte a second.
    asking = threading.Thread(target=lambda: answers.append(_answers(configured.base_url)), daemon=True)
    asking.start()
    asking.join(CONNECTION_SECONDS)
    return answers == [True]


def _answers(url: str) -> bool:
    """Say whether a server answers anything but that it cannot."""
    try:
        with urlopen(url, timeout=CONNECTION_SECONDS):
            return True
    except HTTPError as error:
        return error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code != HTTPStatus.TOO_MANY_REQUESTS
    except URLError as error:
        return isinstance(error.reason, ssl.SSLCertVerificationError)  # of which wandb has settings of its own
    except Exception:  # what is no HTTP ends in many types
        return False


def _warn(error: BaseException) -> None:
    logger.warning(
        "Weights & Biases is off for this job (%s: %s); results.json holds the same numbers, and tracking=none "
        "leaves wandb out",
        type(error).__name__,
        hidden(_first_line(error))[:200],
    )


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def _do_not_wait_at_exit() -> None:
    """Take back wandb's exit hook, which waits for the server, without limit, before the interpreter may end.

    wandb's own process sees that the interpreter has gone and ends too. There is no public way to say this.
    """
    with contextlib.suppress(Exception):
        sys.modules["wandb.sdk.wandb_setup"]._singleton._connection._cleanup()
