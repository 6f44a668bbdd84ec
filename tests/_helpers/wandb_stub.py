"""A stand-in for W&B's server on the loopback: as much of its API as wandb 0.31 asks for, and all that it was sent.

Operations are those that the client sends by name; what one receives is kept in ``asked``. Files and artifacts are
uploaded to addresses that the answers name, below ``/storage``.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "x" * 40
PROJECT = {"id": "1", "name": "p", "entity": {"id": "1", "name": "e"}}


class Stub:
    """The server; a context manager.

    Attributes:
        asked: Name and variables of each GraphQL operation, in order.
        rows: Logged rows of each run, by its id.
        summary: The last summary of each run.
        config: The last config of each run.
        files: What was uploaded, by path below ``/storage``.
        finished: Exit codes by run.
        errors: Statuses to refuse the next requests with, one each; ``refused`` holds the paths of those.
        hanging: Whether requests are taken and never answered.
    """

    def __init__(self):
        self.asked, self.rows, self.summary, self.config, self.files, self.finished = [], {}, {}, {}, {}, {}
        self.errors, self.refused = [], []
        self.hanging, self.released, self.lock = threading.Event(), threading.Event(), threading.Lock()

    def __enter__(self):
        stub = self

        class Handler(_Handler):
            server_state = stub

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.die()

    def die(self):
        """Stop listening, and cut what is under way."""
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def environment(self, folder):
        """Return the variables by which W&B finds the server, waits briefly and keeps its files in a folder."""
        folders = {f"WANDB_{name}_DIR": str(folder) for name in ("CACHE", "CONFIG", "DATA", "ARTIFACT")}
        kinds, ends = ("FILE_STREAM", "FILE_TRANSFER", "GRAPHQL"), {"MIN": "0.05", "MAX": "0.2"}
        waits = {f"WANDB_X_{kind}_RETRY_WAIT_{end}_SECONDS": value for kind in kinds for end, value in ends.items()}
        return {
            "WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online", "WANDB_DIR": str(folder),
            "WANDB_SILENT": "true", "WANDB_FINISH_TIMEOUT": "60", "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "0.2",
            "WANDB_ERROR_REPORTING": "false", **folders, **waits,
        }  # fmt: skip

    def operations(self, name):
        """Return the variables of all operations of a name."""
        return [variables for operation, variables in self.asked if operation == name]

    def history(self, run_id, key):
        """Return the rows of a run that hold a key."""
        return [row for row in self.rows.get(run_id, []) if key in row]

    def answer(self, name, variables):
        """Return the data that answers an operation."""
        method = getattr(self, f"_{name}", None)
        return method(variables) if method else FIXED.get(name, {})

    def _UpsertBucket(self, variables):
        run_id = variables["name"]
        if variables.get("config"):
            self.config[run_id] = json.loads(variables["config"])
        inserted = run_id not in self.rows
        self.rows.setdefault(run_id, [])
        bucket = {"id": run_id, "name": run_id, "displayName": variables.get("displayName") or run_id, "config": "{}"}
        bucket |= {"historyLineCount": len(self.rows[run_id]), "sweepName": None, "project": PROJECT}
        return {"upsertBucket": {"inserted": inserted, "bucket": bucket}}

    def _RunResumeStatus(self, variables):
        rows = self.rows.get(variables["name"])
        bucket = rows and {
            "id": variables["name"], "name": variables["name"], "displayName": variables["name"], "tags": [],
            "summaryMetrics": json.dumps(self.summary.get(variables["name"], {})), "logLineCount": 0,
            "historyLineCount": len(rows), "eventsLineCount": 0, "historyTail": json.dumps([json.dumps(rows[-1])]),
            "eventsTail": "[]", "config": json.dumps(self.config.get(variables["name"], {})), "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip
        return {"model": {"id": "1", "name": "p", "entity": PROJECT["entity"], "bucket": bucket or None}}

    def _CreateRunFiles(self, variables):
        files = [{"name": name, "uploadUrl": self._storage(name)} for name in variables["files"]]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def _CreateArtifact(self, variables):
        sequence = {"id": "s", "name": "s", "latestArtifact": None}
        number = len(self.operations("CreateArtifact"))
        return {"createArtifact": {"artifact": {"id": f"a{number}", "state": "PENDING", "artifactSequence": sequence}}}

    def _CreateArtifactManifest(self, variables):
        url = self._storage(f"{variables['artifactID']}/{variables['name']}")
        file = {"id": "f", "name": variables["name"], "displayName": None, "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def _CreateArtifactFiles(self, variables):
        edges = []
        for spec in variables["input"]["artifactFiles"]:
            url = self._storage(f"{spec['artifactID']}/{spec['name']}")
            node = {"id": "f", "name": spec["name"], "displayName": spec["name"], "storagePath": "wandb_artifacts/f"}
            node |= {"uploadUrl": url, "uploadHeaders": [], "uploadMultipartUrls": None}
            edges.append({"node": node | {"artifact": {"id": spec["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, variables):
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "d"}}}

    def _UpsertView2(self, variables):
        return {"upsertView": {"view": {"id": "view-id", "name": variables["name"]}, "inserted": True}}

    def _storage(self, name):
        return f"{self.url}/storage/{urllib.parse.quote(name)}"

    def stream(self, path, body):
        """Take what the file stream of a run brings."""
        run_id = path.rstrip("/").split("/")[-2]
        for name, part in (body.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]] if name.endswith((".jsonl", ".json")) else []
            if name == "wandb-history.jsonl":
                rows = self.rows.setdefault(run_id, [])
                rows[part["offset"] :] = lines  # what is sent again is not there twice
            elif name == "wandb-summary.json":
                self.summary[run_id] = lines[-1]
        if body.get("complete"):
            self.finished[run_id] = body.get("exitcode")


FIXED = {
    "Viewer": {
        "viewer": {
            "id": "1", "entity": "e", "username": "u", "email": None, "flags": "{}", "admin": False, "deletedAt": None,
            "teams": {"edges": []}, "apiKeys": {"edges": []}, "name": "u", "photoUrl": None,
        }
    },
    "ServerFeaturesQuery": {"serverInfo": {"features": []}},
    "ServerInfo": {"serverInfo": {"cliVersionInfo": {"max_cli_version": "9"}, "latestLocalVersionInfo": None}},
    "OrganizationCoreWeaveOrganizationID": {"entity": {"organization": None}},
    "ArtifactType": {"project": {"artifact": None}},
    "NotifyScriptableRunAlert": {"notifyScriptableRunAlert": {"success": True}},
}  # fmt: skip


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # the client has gone, as clients do


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: Stub

    def _take(self):
        stub = self.server_state
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if stub.hanging.is_set():
            stub.released.wait(3600)
            self.close_connection = True
            return
        with stub.lock:
            if stub.errors:
                stub.refused.append(self.path)
                self._send(stub.errors.pop(0), {"error": "not now"})
                return
            self._send(200, self._answer(body))

    def _answer(self, body):
        stub = self.server_state
        if self.path.startswith("/graphql"):
            request = json.loads(body)
            name = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])[1]
            stub.asked.append((name, request.get("variables") or {}))
            return {"data": stub.answer(name, request.get("variables") or {})}
        if self.path.startswith("/files/"):
            stub.stream(self.path, json.loads(body))
        elif self.path.startswith("/storage/"):
            stub.files[urllib.parse.unquote(self.path.removeprefix("/storage/"))] = body
        return {}

    def _send(self, status, answer):
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = _take  # names of the base class

    def log_message(self, *_):
        pass
