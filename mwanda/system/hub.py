"""One short question to the hub, and what its refusals mean.

The hub's own client tries for most of a minute to reach a hub that is not there, once for every file, and without a
time limit where packets are dropped. So the hub is asked once, without a second try, before that client is let loose.
"""

from http import HTTPStatus
from pathlib import Path
from typing import Literal


Kind = Literal["model", "dataset"]


class HubError(Exception):
    """The hub does not serve a repository; the message says why, and what to do about it."""


class UnreachableError(HubError):
    """The hub does not answer, or may not be asked."""


def find(kind: Kind, repository: str, revision: str | None, file: str) -> str:
    """Return the commit at which the hub serves `file`; the token, if one is needed, comes from HF_TOKEN.

    Raises:
        HubError: the hub cannot be reached, or does not let us have the file.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.constants import ENDPOINT, HF_HUB_ETAG_TIMEOUT

    try:
        url = hf_hub_url(repository, file, repo_type=kind, revision=revision)
        commit = get_hf_file_metadata(url, timeout=HF_HUB_ETAG_TIMEOUT).commit_hash
    except Exception as error:
        # The client's errors and those of the network have no base class in common.
        raise _explained(error, kind, repository, revision, file) from error
    if commit is None:
        raise HubError(f"{ENDPOINT} does not answer as a hub does; look at HF_ENDPOINT and the proxy")
    return commit


def cached(kind: Kind, repository: str, revision: str | None, file: str) -> Path | None:
    """Return where the hub's client keeps `file`, if it has fetched it before."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, file, revision=revision, repo_type=kind)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def fetch(kind: Kind, repository: str, revision: str, file: str) -> Path | None:
    """Fetch a file that a repository need not have; return where it is, or None where there is none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        return Path(hf_hub_download(repository, file, revision=revision, repo_type=kind))
    except (EntryNotFoundError, HfHubHTTPError, OSError):
        return None


def _explained(error: Exception, kind: Kind, repository: str, revision: str | None, file: str) -> HubError:
    from huggingface_hub import errors
    from huggingface_hub.constants import ENDPOINT

    page = f"{ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repository}"
    reasons: list[tuple[type[Exception], str]] = [
        (errors.HFValidationError, "that is neither a folder nor a name that the hub allows"),
        # The order counts: to the client, a gated repository is also one that is not found.
        (
            errors.GatedRepoError,
            f"access is gated; accept the terms on {page} and set HF_TOKEN to that account's token",
        ),
        (
            errors.RepositoryNotFoundError,
            f"the hub has no such {kind}; look for a typing error, or set HF_TOKEN if it is a private one",
        ),
        (errors.RevisionNotFoundError, f"the hub has no revision '{revision}' of it; see {page}/commits/main"),
        (errors.EntryNotFoundError, f"there is no {file} in it; see {page}"),
    ]
    for kinds, reason in reasons:
        if isinstance(error, kinds):
            return HubError(reason)
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if status == HTTPStatus.UNAUTHORIZED:
        return HubError(f"the hub refuses the token in HF_TOKEN; make another on {ENDPOINT}/settings/tokens")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return UnreachableError("HF_HUB_OFFLINE keeps the hub off")
    answer = f"answers {status}" if status else f"cannot be reached ({type(error).__name__})"
    return UnreachableError(f"the hub at {ENDPOINT} {answer}")
