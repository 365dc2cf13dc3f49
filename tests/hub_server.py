"""A Hugging Face hub on this machine's loopback: repositories held in folders, served by its HTTP protocol."""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit


Kind = Literal["model", "dataset"]
Steps = dict[str, dict[str, Any]]

ROOT = Path(__file__).resolve().parent.parent
# The hub keeps these outside git: a request for one is redirected to another host, without the token.
LARGE_FILES = (".safetensors", ".parquet", ".gz")
REPOSITORY = r"(?P<id>[\w.-]+/[\w.-]+)"
API = re.compile(rf"/api/(?P<kind>model|dataset)s/{REPOSITORY}(?P<action>/.*)?")
FILE = re.compile(rf"/(?P<kind>datasets/)?{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
MARK = "answers: "
TIME_LIMIT = 300
ANONYMOUS, MISSING, FORBIDDEN = HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN


@dataclass
class Repository:
    """A repository: the folder of each commit, and the commit that `main` points to."""

    kind: Kind
    id: str
    gated: bool = False
    commits: dict[str, Path] = field(default_factory=dict)
    main: str = ""

    def commit(self, revision: str) -> str | None:
        """Return the commit that `revision` names."""
        name = self.main if revision == "main" else revision
        return name if name in self.commits else None


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    token: str | None
    range: str | None


class RefusalError(Exception):
    """An answer that is not a success."""

    def __init__(self, status: HTTPStatus, code: str, message: str, commit: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.commit = status, code, message, commit


class HubServer(AbstractContextManager["HubServer"]):
    """A hub that runs in a thread for as long as the context lasts."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections: list[socket.socket] = []
        self.stored: dict[str, Path] = {}
        self.members: dict[str, set[str]] = {}
        self.out_of_order: set[str] = set()
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        # A client keeps its connection for the next request, and would be served on it by a server that has stopped.
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def port(self) -> int:
        """The port it listens at."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The value for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def push(self, kind: Kind, repository: str, folder: Path, gated: bool = False) -> str:
        """Serve `folder` as the newest commit of a repository and return the commit; the first says if it is gated."""
        entry = self._repositories.setdefault((kind, repository), Repository(kind, repository, gated))
        digest = hashlib.sha1(entry.main.encode())
        for file in _files(folder):
            digest.update(file.encode() + (folder / file).read_bytes())
        entry.main = digest.hexdigest()
        entry.commits[entry.main] = folder
        return entry.main

    def admit(self, token: str, *repositories: str) -> None:
        """Make `token` a valid one, with access to these gated repositories."""
        self.members.setdefault(token, set()).update(repositories)

    def asked(self, part: str) -> list[Request]:
        """Return the requests whose path contains `part`."""
        return [request for request in self.requests if part in request.path]

    def repository(self, kind: str, name: str, token: str | None) -> Repository:
        """Return a repository, or refuse as the hub does."""
        if token is not None and token not in self.members:
            raise RefusalError(ANONYMOUS, "", "Invalid credentials in Authorization header")
        if name in self.out_of_order:
            raise RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, "", "Service unavailable")
        if (kind, name) not in self._repositories:
            # To the anonymous, a repository that does not exist is not told apart from a private one.
            raise RefusalError(ANONYMOUS if token is None else MISSING, "RepoNotFound", "Repository not found")
        return self._repositories[kind, name]


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """Note the connection."""
        super().setup()
        self.hub.connections.append(self.connection)

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep quiet."""

    def _answer(self) -> None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        self.token = token if scheme == "Bearer" else None
        self.hub.requests.append(Request(self.command, self.path, self.token, self.headers.get("Range")))
        url = urlsplit(self.path)
        path = unquote(url.path)
        # The body is read even when the answer is a refusal: the next request follows it on the connection.
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            if path in self.hub.stored:
                self._send_bytes(self.hub.stored[path])
            elif found := API.fullmatch(path):
                self._answer_api(found, parse_qs(url.query), parse_qs(body.decode()))
            elif found := FILE.fullmatch(path):
                self._answer_file(found)
            else:
                raise RefusalError(MISSING, "", f"No such route: {path}")
        except RefusalError as refusal:
            self._refuse(refusal)

    def _answer_api(self, found: re.Match[str], query: dict[str, list[str]], body: dict[str, list[str]]) -> None:
        repository = self.hub.repository(found["kind"], found["id"], self.token)
        action, _, rest = (found["action"] or "/revision/main").lstrip("/").partition("/")
        revision, _, folder = rest.partition("/")
        root, commit = self._checked_out(repository, revision)
        if action == "revision" and not folder:
            self._send_json(_description(repository, root, commit))
        elif action == "tree":
            recursive = query.get("recursive", ["false"])[0].lower() == "true"
            self._send_json(list(_tree(root, folder, recursive, commit)))
        elif action == "paths-info":
            paths = [path.strip("/") for path in body.get("paths", []) if (root / path).exists()]
            self._send_json([_entry(root, root / path) for path in paths])
        else:
            raise RefusalError(MISSING, "", f"No such route: {action}")

    def _answer_file(self, found: re.Match[str]) -> None:
        kind = "dataset" if found["kind"] else "model"
        repository = self.hub.repository(kind, found["id"], self.token)
        self._check_access(repository)
        root, commit = self._checked_out(repository, found["revision"])
        file = root / found["file"]
        if not file.is_file():
            raise RefusalError(MISSING, "EntryNotFound", "Entry not found", commit)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_git_blob(file)}"'}
        if file.suffix in LARGE_FILES:
            digest = _sha256(file)
            self.hub.stored[f"/storage/{digest}"] = file
            headers |= {
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(file.stat().st_size),
                "Location": f"http://localhost:{self.hub.port}/storage/{digest}",
            }
            self._send(HTTPStatus.FOUND, b"", headers)
        else:
            self._send_bytes(file, headers)

    def _check_access(self, repository: Repository) -> None:
        if not repository.gated or (self.token and repository.id in self.hub.members[self.token]):
            return
        where = f"Access to {repository.kind} {repository.id} is restricted"
        if self.token is None:
            raise RefusalError(ANONYMOUS, "GatedRepo", f"{where}. You must be authenticated to access it.")
        raise RefusalError(FORBIDDEN, "GatedRepo", f"{where} and you are not in the authorized list.")

    def _checked_out(self, repository: Repository, revision: str) -> tuple[Path, str]:
        commit = repository.commit(revision)
        if commit is None:
            raise RefusalError(MISSING, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository.commits[commit], commit

    def _send_bytes(self, file: Path, headers: dict[str, str] | None = None) -> None:
        content = file.read_bytes()
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **(headers or {})}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._send(HTTPStatus.OK, content, headers)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        if first > last:
            raise RefusalError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "", "Range not satisfiable")
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(HTTPStatus.PARTIAL_CONTENT, content[first : last + 1], headers)

    def _send_json(self, value: object) -> None:
        self._send(HTTPStatus.OK, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, refusal: RefusalError) -> None:
        headers = {"X-Error-Message": refusal.message, "Content-Type": "application/json"}
        headers |= {"X-Error-Code": refusal.code} if refusal.code else {}
        headers |= {"X-Repo-Commit": refusal.commit} if refusal.commit else {}
        self._send(refusal.status, json.dumps({"error": refusal.message}).encode(), headers)

    def _send(self, status: HTTPStatus, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _description(repository: Repository, root: Path, commit: str) -> dict[str, object]:
    return {
        "_id": commit[:24],
        "id": repository.id,
        "author": repository.id.partition("/")[0],
        "sha": commit,
        "lastModified": "2024-01-01T00:00:00.000Z",
        "private": False,
        "disabled": False,
        "gated": "manual" if repository.gated else False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [{"rfilename": file} for file in _files(root)],
    }


def _tree(root: Path, folder: str, recursive: bool, commit: str) -> Iterator[dict[str, object]]:
    if not (root / folder).is_dir():
        raise RefusalError(MISSING, "EntryNotFound", f"{folder} does not exist", commit)
    entries = (root / folder).rglob("*") if recursive else (root / folder).iterdir()
    yield from (_entry(root, path) for path in sorted(entries))


def _entry(root: Path, path: Path) -> dict[str, object]:
    name = path.relative_to(root).as_posix()
    if path.is_dir():
        return {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0, "path": name}
    size = path.stat().st_size
    entry: dict[str, object] = {"type": "file", "oid": _git_blob(path), "size": size, "path": name}
    if path.suffix in LARGE_FILES:
        entry["lfs"] = {"oid": _sha256(path), "size": size, "pointerSize": 134}
    return entry


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _git_blob(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class Client(AbstractContextManager["Client"]):
    """A process of its own that knows one hub, and for which waiting takes no time.

    Args:
        answer: Python code that defines `answer(**step)`, which returns a dictionary.
        endpoint: the address of the hub.
        home: the folder for its caches.
        environment: more environment variables.
    """

    def __init__(self, answer: str, endpoint: str, home: Path, **environment: str) -> None:
        home.mkdir(exist_ok=True)
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", dir=home)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOOP.replace("ANSWER", answer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            env={**hub_environment(endpoint, home), **environment},
        )
        # A client that hangs is a failure, not a test run that never ends.
        self._watchdog = threading.Timer(TIME_LIMIT, self._process.kill)
        self._watchdog.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        self._watchdog.cancel()
        self._errors.close()

    def ask(self, steps: Steps) -> dict[str, dict[str, Any]]:
        """Return the answer to each step; an error of this project has the key `error`.

        A step is the arguments of `answer`, and `token` the value of HF_TOKEN.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(steps) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(MARK):
                answers: dict[str, dict[str, Any]] = json.loads(line.removeprefix(MARK))
                return answers
        raise AssertionError(self.printed())

    def printed(self) -> str:
        """Return what it has written to standard error: warnings, and the traceback of each error."""
        self._errors.seek(0)
        return self._errors.read()


_LOOP = f"""
import json, os, sys, time, traceback

naps = []
time.sleep = naps.append

from mwanda.errors import MwandaError

ANSWER

for line in sys.stdin:
    answers = {{}}
    for name, step in json.loads(line).items():
        naps.clear()
        os.environ["HF_TOKEN"] = step.pop("token", "")
        try:
            answers[name] = answer(**step)
        except MwandaError as error:
            traceback.print_exc()
            answers[name] = {{"error": str(error), "type": type(error).__name__}}
        answers[name]["slept"] = sum(naps)
    print({MARK!r} + json.dumps(answers), flush=True)
"""


def hub_environment(endpoint: str, home: Path) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
    }
    return inherited | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HOME": str(home),
        "MWANDA_CACHE": str(home / "mwanda"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
