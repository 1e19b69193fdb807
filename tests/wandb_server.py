"""A stand-in for W&B's API on this machine: it keeps what `wandb sync` sends, for tests to look at."""

import gzip
import json
import re
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "a" * 40


@dataclass
class Run:
    """One run as the server has it."""

    variables: dict[str, Any]
    history: dict[int, dict[str, Any]] = field(default_factory=dict)  # line -> row
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    finished: bool = False

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [self.history[line] for line in sorted(self.history)]


@dataclass
class Server:
    """What was asked of it. `stall_on` is a run whose history is never answered, as by a network that hangs."""

    url: str
    runs: dict[str, Run] = field(default_factory=dict)
    begun: Counter[str] = field(default_factory=Counter)  # how often an upload of a run began
    streamed: Counter[str] = field(default_factory=Counter)  # requests with history, by run
    views: dict[str, dict[str, Any]] = field(default_factory=dict)  # workspaces, by id
    stall_on: str | None = None
    knows: bool = True  # the account that asks
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    @property
    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online"}

    def graphql(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        if name == "Viewer" and not self.knows:
            return {"viewer": None}
        if name in ("Viewer", "GetDefaultEntity"):
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        if name == "UpsertBucket":
            run = self.runs.setdefault(given["name"], Run({}))
            run.variables |= {key: value for key, value in given.items() if value is not None}
            project = {"id": "p", "name": given.get("project"), "entity": {"id": "e", "name": "me"}}
            bucket = {"id": given["name"], "name": given["name"], "displayName": None, "config": "{}"}
            bucket |= {"sweepName": None, "description": None, "historyLineCount": 0, "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if name == "CreateRunFiles":
            where = f"{self.url}/upload/{given['run']}"
            files = [{"name": file, "uploadUrl": f"{where}/{file}"} for file in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        if name == "CreateArtifact":  # a table's second copy: it is there already, so that its files need no store
            artifact: dict[str, Any] = {"id": "a", "state": "COMMITTED"}
            artifact["artifactSequence"] = {"id": "s", "latestArtifact": {"id": "a", "versionIndex": 0}}
            return {"createArtifact": {"artifact": artifact}}
        if name == "UpsertView2":
            place = given.get("id") or f"view{len(self.views)}"
            self.views[place] = given
            return {"upsertView": {"view": {"id": place, "name": given["name"]}, "inserted": True}}
        return {}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        run = self.runs[name]
        for file, part in (sent.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]]
            if file == "wandb-history.jsonl":
                if part["offset"] == 0:
                    self.begun[name] += 1
                self.streamed[name] += 1
                if name == self.stall_on:
                    self.stalled.set()
                    self.go_on.wait(60)
                    raise ConnectionAbortedError(name)  # nobody waits any more, and nothing is kept
                run.history |= {part["offset"] + place: line for place, line in enumerate(lines)}
            elif file == "wandb-summary.json":
                run.summary = lines[-1]
        run.finished = run.finished or bool(sent.get("complete"))


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is part of the test."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def body(self) -> bytes:
        made = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(made) if self.headers.get("Content-Encoding") == "gzip" else made

    def answer(self, content: dict[str, Any]) -> None:
        made = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(made)))
        self.end_headers()
        self.wfile.write(made)

    def do_PUT(self) -> None:
        name, _, file = self.path.removeprefix("/upload/").partition("/")
        self.state.runs[name].files[file] = self.body()
        self.answer({})

    def do_POST(self) -> None:
        body = self.body()
        if not body:  # a client that was killed
            return
        sent = json.loads(body)
        if self.path.startswith("/graphql"):
            found = re.search(r"(?:query|mutation) (\w+)", sent["query"])
            self.answer({"data": self.state.graphql(found[1] if found else "", sent.get("variables") or {})})
        else:  # /files/ENTITY/PROJECT/RUN/file_stream
            self.state.stream(self.path.split("/")[4], sent)
            self.answer({"exitcode": None, "limits": {}})


@contextmanager
def serving() -> Generator[Server]:
    """The server, for the block."""
    with Quiet(("127.0.0.1", 0), Handler) as http:
        state = Server(f"http://127.0.0.1:{http.server_port}")
        http.RequestHandlerClass = type("Bound", (Handler,), {"state": state})
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            state.go_on.set()
            http.shutdown()
            thread.join()
