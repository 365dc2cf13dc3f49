"""A server on this machine that speaks the part of Weights & Biases' protocol which its client uses, and keeps runs."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class KeptRun:
    """What the server knows of one run."""

    asked: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    artifacts: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)


@dataclass
class Service:
    """What was sent, and what is kept of it."""

    runs: dict[str, KeptRun] = field(default_factory=dict)
    operations: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    made: int = 0
    url: str = ""

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        named = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = named[1] if named else ""
        self.operations.append((name, variables))
        handler = getattr(self, f"on_{name.lower()}", None)
        if handler is None:
            self.unknown.append(f"{name} {query}")
            return {}
        found: dict[str, Any] = handler(variables)
        return found

    def on_viewer(self, _: Any) -> Any:
        return {"viewer": {"id": "VXNlcjox", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}

    def on_runresumestatus(self, asked: dict[str, Any]) -> Any:
        run = self.runs.get(asked["name"])
        bucket = run and {
            "id": asked["name"],
            "name": asked["name"],
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.asked["displayName"],
            "logLineCount": 0,
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
            "eventsTail": "[]",
            "config": run.asked["config"],
            "tags": run.asked["tags"],
            "notes": None,
            "wandbConfig": json.dumps({"t": {}}),
        }
        return {"model": {"id": "p", "name": asked["project"], "entity": {"id": "e", "name": "me"}, "bucket": bucket}}

    def on_upsertbucket(self, asked: dict[str, Any]) -> Any:
        new = asked["name"] not in self.runs
        run = self.runs.setdefault(asked["name"], KeptRun())
        run.asked |= {key: value for key, value in asked.items() if value is not None}
        project = {"id": "p", "name": asked["project"], "entity": {"id": "e", "name": "me"}}
        bucket = {"id": asked["name"], "name": asked["name"], "displayName": run.asked.get("displayName")}
        bucket |= {"config": run.asked["config"], "project": project, "historyLineCount": len(run.history)}
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def on_artifacttype(self, _: Any) -> Any:
        return {"project": {"artifact": None}}

    def on_organizationcoreweaveorganizationid(self, _: Any) -> Any:
        return {"entity": None}

    def on_upsertview(self, asked: dict[str, Any]) -> Any:
        if asked.get("id") and asked["id"] not in self.views:
            raise LookupError("view not found")
        self.made += not asked.get("id")
        found = asked.get("id") or f"view-{self.made}"
        self.views[found] = asked
        view = {"id": found, "name": asked["name"], "displayName": asked["displayName"], "type": asked["type"]}
        view |= {"description": asked["description"], "spec": asked["spec"], "user": None}
        view |= {"project": {"name": asked["projectName"], "entityName": asked["entityName"]}}
        view |= {"createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
        return {"upsertView": {"view": view, "inserted": not asked.get("id")}}

    on_upsertview2 = on_upsertview

    def on_projectinternalid(self, _: Any) -> Any:
        return {"project": {"id": "p", "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ=="}}

    def on_getprojects(self, asked: dict[str, Any]) -> Any:
        node = {"id": "p", "name": "study", "entityName": asked["entity"], "createdAt": "2026-01-01T00:00:00Z"}
        node |= {"isBenchmark": False, "internalId": "p", "user": None}
        return {
            "models": {"edges": [{"cursor": "1", "node": node}], "pageInfo": {"endCursor": "1", "hasNextPage": False}}
        }

    def on_serverfeaturesquery(self, _: Any) -> Any:
        return {"serverInfo": {"features": []}}

    def on_artifactbyid(self, asked: dict[str, Any]) -> Any:
        values = self.artifacts[asked["id"]]
        name = values["artifactCollectionName"]
        project = {"id": "p", "internalId": "p", "name": "mwanda", "entity": {"id": "e", "name": "me"}}
        collection = {"__typename": "ArtifactSequence", "id": name, "name": name, "project": project}
        found = {"__typename": "Artifact", "id": asked["id"], "artifactSequence": collection, "versionIndex": 0}
        found |= {"artifactType": {"name": values["artifactTypeName"]}, "description": None, "metadata": "{}"}
        found |= {"ttlDurationSeconds": -2, "ttlIsInherited": True, "tags": [], "historyStep": None}
        found |= {"state": "COMMITTED", "size": 1, "digest": values["digest"], "commitHash": "c", "fileCount": 1}
        found |= {"createdAt": "2026-01-01T00:00:00Z", "updatedAt": None, "aliases": []}
        return {"artifact": found}

    def on_createrunfiles(self, asked: dict[str, Any]) -> Any:
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}

    def on_createartifact(self, asked: dict[str, Any]) -> Any:
        values = asked.get("input", asked)
        name = values["artifactCollectionName"] if "artifactCollectionName" in values else values["artifactName"]
        version = f"{name}@{values['digest']}"
        known = version in self.artifacts
        self.artifacts.setdefault(version, values)
        if values.get("runName") in self.runs:
            self.runs[values["runName"]].artifacts[name] = version
        state = "COMMITTED" if known else "PENDING"
        found = {"id": version, "state": state, "artifactSequence": {"id": name, "name": name, "latestArtifact": None}}
        return {"createArtifact": {"artifact": found}}

    def on_createartifactmanifest(self, asked: dict[str, Any]) -> Any:
        file = {"id": "f", "name": "m", "displayName": "m", "uploadUrl": f"{self.url}/upload/m", "uploadHeaders": []}
        made = {"id": "m", "file": file, "artifact": {"id": asked.get("artifactID", "a")}}
        return {"createArtifactManifest": {"artifactManifest": made}}

    def on_updateartifactmanifest(self, asked: dict[str, Any]) -> Any:
        found: dict[str, Any] = self.on_createartifactmanifest(asked)
        return {"updateArtifactManifest": found["createArtifactManifest"]}

    def on_createartifactfiles(self, asked: dict[str, Any]) -> Any:
        specs = asked.get("artifactFiles") or asked["input"]["artifactFiles"]
        edges = [
            {
                "node": {
                    "id": each["name"],
                    "name": each["name"],
                    "displayName": each["name"],
                    "uploadUrl": f"{self.url}/upload/{each['name']}",
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "storagePath": each["name"],
                    "artifact": {"id": each.get("artifactID", "a")},
                }
            }
            for each in specs
        ]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_commitartifact(self, asked: dict[str, Any]) -> Any:
        return {"commitArtifact": {"artifact": {"id": asked["artifactID"], "digest": ""}}}

    def on_useartifact(self, asked: dict[str, Any]) -> Any:
        values = asked.get("input", asked)
        self.runs[values["runName"]].used.add(values["artifactID"])
        return {"useArtifact": {"artifact": {"id": values["artifactID"]}}}

    def stream(self, run: KeptRun, content: dict[str, Any]) -> None:
        """Take what `file_stream` carries: rows are put where they say, the summary is the last one."""
        for name, part in (content.get("files") or {}).items():
            rows = [json.loads(row) for row in part["content"]]
            if name == "wandb-history.jsonl":
                run.history[part["offset"] : part["offset"] + len(rows)] = rows
            elif name == "wandb-summary.json":
                run.summary = rows[-1]
        if "exitcode" in content:
            run.exit_code = content["exitcode"]


@contextmanager
def serving() -> Iterator[Service]:
    """Serve on the loopback address."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _content(self) -> bytes:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

        def _say(self, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._say({})

        def do_PUT(self) -> None:
            self._content()
            self._say({})

        def do_POST(self) -> None:
            try:
                content = json.loads(self._content() or b"{}")
            except ValueError:  # telemetry
                self._say({})
                return
            if self.path.endswith("/graphql"):
                try:
                    self._say({"data": service.answer(content["query"], content.get("variables") or {})})
                except LookupError as error:
                    self._say({"data": None, "errors": [{"message": str(error)}]})
            else:
                service.operations.append((self.path, content))
                if self.path.endswith("/file_stream"):
                    service.stream(service.runs[self.path.split("/")[-2]], content)
                self._say({})

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Say nothing of clients that go without a word."""

    server = Server(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
