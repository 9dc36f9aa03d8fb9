"""A stand-in for the W&B server on loopback: what runs, artifacts, views and `wandb sync` ask for, no more.

with StandIn() as server:
    ...  # WANDB_BASE_URL=server.url, WANDB_API_KEY=API_KEY
    server.runs["id"].rows
"""

import gzip
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API_KEY = "a" * 40
ENTITY = "stand-in"

Row = dict[str, Any]


@dataclass
class Run:
    """What the server knows of one run."""

    project: str
    fields: Row = field(default_factory=dict)
    config: Row = field(default_factory=dict)
    summary: Row = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    starts: int = 0

    @property
    def record_rows(self) -> list[Row]:
        """The rows that hold numbers, without the tables that are logged at the end."""
        rows = []
        for row in self.rows:
            kept = {key: value for key, value in row.items() if not key.endswith("/table")}
            # W&B itself adds times, and the step metric to a table's row.
            if kept == row or kept.keys() - {"_step", "_runtime", "_timestamp", "checkpoint_step"}:
                rows.append(kept)
        return rows


@dataclass
class Artifact:
    """One version of an artifact."""

    name: str
    type: str
    aliases: list[str]
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


class StandIn:
    """The server; `silent=True` accepts connections and its API never answers, `stop` lets it die at once."""

    def __init__(self, silent: bool = False) -> None:
        self.runs: dict[str, Run] = {}
        self.artifacts: list[Artifact] = []
        self.views: dict[str, Row] = {}
        self.alerts: list[Row] = []
        self.unknown: list[str] = []
        self.received: list[bytes] = []
        self._released = threading.Event()
        if not silent:
            self._released.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, self._released))
        self._server.daemon_threads = True
        # A client that is gone is no error of the server's.
        self._server.handle_error = lambda *_: None
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def reports(self) -> list[Artifact]:
        """The artifacts that are reports: a table is an artifact too."""
        return [artifact for artifact in self.artifacts if artifact.type == "activation-report"]

    def __enter__(self) -> "StandIn":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuse all connections from now on."""
        self._released.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=5)
        self._server.server_close()

    def answer(self, operation: str, query: str, given: Row) -> Row:
        """Answer one GraphQL operation."""
        name = operation or query.split("(")[0].split()[-1]
        reply = getattr(self, f"_{name}", None)
        if reply is None:
            self.unknown.append(name)
            return {}
        return reply(given.get("input", given))

    def _Viewer(self, _: Row) -> Row:  # noqa: N802 - named like the operation
        return {
            "viewer": {"id": "V", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}
        }

    def _Reachable(self, _: Row) -> Row:  # noqa: N802
        return {"__typename": "Query"}

    def _ServerFeaturesQuery(self, _: Row) -> Row:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def _RunResumeStatus(self, given: Row) -> Row:  # noqa: N802
        run = self.runs.get(given["name"])
        if run is None:
            return {"model": None}
        bucket = {
            "id": given["name"],
            "name": given["name"],
            "displayName": run.fields.get("displayName"),
            "summaryMetrics": json.dumps(run.summary),
            "config": json.dumps(run.config),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyLineCount": len(run.rows),
            "historyTail": json.dumps([json.dumps(row) for row in run.rows[-1:]]),
            "eventsTail": "[]",
            "tags": [],
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }
        return {
            "model": {"id": "P", "name": run.project, "entity": {"id": "E", "name": ENTITY}, "bucket": bucket}
        }

    def _UpsertBucket(self, given: Row) -> Row:  # noqa: N802
        name = given["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, Run(given["project"]))
        run.starts += given["displayName"] is not None
        run.fields |= {key: value for key, value in given.items() if value is not None}
        run.config |= json.loads(given["config"] or "{}")
        project = {"id": "P", "name": run.project, "entity": {"id": "E", "name": given["entity"] or ENTITY}}
        bucket = {"id": name, "name": name, "displayName": run.fields.get("displayName"), "project": project}
        bucket |= {"config": json.dumps(run.config), "historyLineCount": len(run.rows)}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _CreateRunFiles(self, given: Row) -> Row:  # noqa: N802
        files = [
            {"name": name, "uploadUrl": f"{self.url}/storage/run/{given['run']}/{name}"}
            for name in given["files"]
        ]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _ArtifactType(self, _: Row) -> Row:  # noqa: N802
        return {"project": None}

    def _CreateArtifact(self, given: Row) -> Row:  # noqa: N802
        aliases = sorted(alias["alias"] for alias in given["aliases"])
        self.artifacts.append(Artifact(given["artifactCollectionName"], given["artifactTypeName"], aliases))
        artifact = {"id": str(len(self.artifacts) - 1), "state": "PENDING", "artifactSequence": {"id": "S"}}
        return {"createArtifact": {"artifact": artifact}}

    def _CreateArtifactManifest(self, given: Row) -> Row:  # noqa: N802
        file = {"id": "F", "uploadUrl": f"{self.url}/storage/manifest", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": given["artifactID"], "file": file}}}

    def _UpdateArtifactManifest(self, given: Row) -> Row:  # noqa: N802
        answer = self._CreateArtifactManifest({"artifactID": given.get("artifactManifestID")})
        return {"updateArtifactManifest": answer["createArtifactManifest"]}

    def _CreateArtifactFiles(self, given: Row) -> Row:  # noqa: N802
        nodes = []
        for file in given["artifactFiles"]:
            owner, name = file["artifactID"], file["name"]
            node = {
                "id": "F",
                "name": name,
                "storagePath": name,
                "uploadHeaders": [],
                "artifact": {"id": owner},
            }
            nodes.append({"node": node | {"uploadUrl": f"{self.url}/storage/artifact/{owner}/{name}"}})
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def _CommitArtifact(self, given: Row) -> Row:  # noqa: N802
        self.artifacts[int(given["artifactID"])].committed = True
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "D"}}}

    def _NotifyScriptableRunAlert(self, given: Row) -> Row:  # noqa: N802
        self.alerts.append(given)
        return {"notifyScriptableRunAlert": {"success": True}}

    def _UpsertView2(self, given: Row) -> Row:  # noqa: N802
        inserted = given["name"] not in self.views
        self.views[given["name"]] = given
        return {"upsertView": {"view": {"id": given["name"], "name": given["name"]}, "inserted": inserted}}

    def _View(self, given: Row) -> Row:  # noqa: N802
        view = self.views[given["viewName"]]
        node = {"id": view["name"], "displayName": view["displayName"], "spec": view["spec"]}
        return {"project": {"allViews": {"edges": [{"node": node}]}}}

    def stream(self, name: str, document: Row) -> None:
        """Take what a run streams: rows, its summary, its end."""
        run, files = self.runs[name], document.get("files") or {}
        history = files.get("wandb-history.jsonl")
        if history:
            run.rows[history["offset"] :] = [json.loads(line) for line in history["content"]]
        for line in files.get("wandb-summary.json", {}).get("content", ()):
            run.summary = json.loads(line)
        if document.get("complete"):
            run.exit_code = document["exitcode"]

    def store(self, path: list[str], content: bytes) -> None:
        """Take an uploaded file."""
        if path[:2] == ["storage", "run"]:
            self.runs[path[2]].files["/".join(path[3:])] = content
        elif path[:2] == ["storage", "artifact"]:
            self.artifacts[int(path[2])].files["/".join(path[3:])] = content


def _handler(server: StandIn, released: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def do_POST(self) -> None:
            path, content = self._taken()
            if path == ["graphql"]:
                asked = json.loads(content)
                found = server.answer(
                    asked.get("operationName"), asked["query"], asked.get("variables") or {}
                )
                self._answer({"data": found})
            elif path[-1] == "file_stream":
                server.stream(path[-2], json.loads(content))
                self._answer({})
            else:
                self._answer({}, 404)

        def do_PUT(self) -> None:
            server.store(*self._taken())
            self._answer({})

        def _taken(self) -> tuple[list[str], bytes]:
            released.wait()
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                content = gzip.decompress(content)
            server.received.append(content)
            return self.path.strip("/").split("/"), content

        def _answer(self, document: Row, status: int = 200) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler
