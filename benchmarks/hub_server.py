"""A hub on this machine: the part of the Hugging Face hub's HTTP interface that its client calls.

    with serve() as hub:
        os.environ["HF_ENDPOINT"] = hub.address   # before huggingface_hub is imported

It speaks Git LFS and not Xet, the newer way of large files: set HF_HUB_DISABLE_XET=1. Repositories
live in memory. Files are uploaded and served as the hub does it: small ones inside a commit, large
ones by Git LFS; every commit is kept and named by the hash of its files.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 10_000  # bytes from which a file goes by LFS
MAIN = "main"


@dataclass
class Hub:
    """Everything that was uploaded.

    Attributes:
        address: of the server.
        objects: contents by SHA-256; what lies here is served, so tests spoil it.
        commits: repository -> commit -> path -> SHA-256.
        branches: repository -> branch -> commit.
        asked: every request, "METHOD PATH".
    """

    address: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def files(self, repository: str, revision: str = MAIN) -> dict[str, str] | None:
        """Path -> SHA-256 of a branch or a commit; None where it is not there."""
        commit = self.branches.get(repository, {}).get(revision, revision)
        return self.commits.get(repository, {}).get(commit)

    def commit(self, repository: str, branch: str, files: dict[str, str]) -> str:
        """Keep a commit as the newest of its branch; its name is a hash of its files."""
        name = sha256(json.dumps(sorted(files.items())).encode()).hexdigest()[:40]
        self.commits.setdefault(repository, {})[name] = files
        self.branches.setdefault(repository, {})[branch] = name
        return name

    def put(self, data: bytes) -> str:
        """Keep contents; returns their SHA-256."""
        name = sha256(data).hexdigest()
        self.objects[name] = data
        return name


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub on a free port of the loopback interface while this is entered."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Answer = tuple[int, dict[str, str], bytes]
ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = []
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


def _route(method: str, pattern: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    def keep(function: Callable[..., Answer]) -> Callable[..., Answer]:
        ROUTES.append((method, re.compile(pattern.replace("REPO", REPO)), function))
        return function

    return keep


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.state.asked.append(f"{self.command} {path}")
        status, headers, data = self._found(path, body)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _found(self, path: str, body: bytes) -> Answer:
        for method, pattern, function in ROUTES:
            match = pattern.fullmatch(path)
            if match and method in (self.command, "GET" * (self.command == "HEAD")):
                return function(self.state, body, **match.groupdict())
        return _missing("EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _json(value: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _missing(code: str) -> Answer:
    return 404, {"X-Error-Code": code, "X-Error-Message": code}, b""


@_route("POST", "/api/repos/create")
def _create(hub: Hub, body: bytes) -> Answer:
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    told = {"url": f"{hub.address}/{name}", "name": name}
    if name in hub.branches:
        return _json(told | {"error": "You already created this model repo"}, 409)
    hub.commit(name, MAIN, {})
    return _json(told)


@_route("POST", "/api/validate-yaml")
def _validate(hub: Hub, body: bytes) -> Answer:
    return _json({"errors": [], "warnings": []})


@_route("POST", "/api/models/REPO/branch/(?P<branch>.+)")
def _branch(hub: Hub, body: bytes, repo: str, branch: str) -> Answer:
    if branch in hub.branches[repo]:
        return _json({"error": "Reference already exists"}, 409)
    hub.branches[repo][branch] = hub.branches[repo][MAIN]
    return _json({})


@_route("POST", "/api/models/REPO/preupload/(?P<revision>.+)")
def _preupload(hub: Hub, body: bytes, repo: str, revision: str) -> Answer:
    files = [
        {"path": f["path"], "shouldIgnore": False,
         "uploadMode": "lfs" if f["size"] > LARGE else "regular"}
        for f in json.loads(body)["files"]
    ]  # fmt: skip
    return _json({"files": files})


@_route("POST", r"/REPO\.git/info/lfs/objects/batch")
def _batch(hub: Hub, body: bytes, repo: str) -> Answer:
    objects = []
    for each in json.loads(body)["objects"]:
        there, href = each["oid"] in hub.objects, f"{hub.address}/lfs/{each['oid']}"
        actions = {} if there else {"actions": {"upload": {"href": href}}}
        objects.append({"oid": each["oid"], "size": each["size"], **actions})
    return _json({"transfer": "basic", "objects": objects})


@_route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
def _upload(hub: Hub, body: bytes, oid: str) -> Answer:
    return (200, {}, b"") if hub.put(body) == oid else (400, {}, b"another hash")


@_route("POST", "/api/models/REPO/commit/(?P<branch>.+)")
def _commit(hub: Hub, body: bytes, repo: str, branch: str) -> Answer:
    files = dict(hub.files(repo, branch) or {})
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = hub.put(base64.b64decode(value["content"]))
        elif line["key"] == "lfsFile":
            files[value["path"]] = value["oid"]
        elif line["key"] == "deletedFile":
            del files[value["path"]]
    name = hub.commit(repo, branch, files)
    return _json({"commitOid": name, "commitUrl": f"{hub.address}/{repo}/commit/{name}"})


@_route("GET", "/api/models/REPO(/revision/(?P<revision>.+))?")
def _info(hub: Hub, body: bytes, repo: str, revision: str | None = None) -> Answer:
    if repo not in hub.branches:
        return _missing("RepoNotFound")
    revision = revision or MAIN
    if hub.files(repo, revision) is None:
        return _missing("RevisionNotFound")
    commit = hub.branches[repo].get(revision, revision)
    return _json({"id": repo, "modelId": repo, "sha": commit, "siblings": []})


@_route("GET", "/api/models/REPO/tree/(?P<revision>[^/]+)")
def _tree(hub: Hub, body: bytes, repo: str, revision: str) -> Answer:
    rows = []
    for path, name in sorted((hub.files(repo, revision) or {}).items()):
        size = len(hub.objects[name])
        row: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": name[:40]}
        if size > LARGE:
            row["lfs"] = {"oid": name, "size": size, "pointerSize": 134}
        rows.append(row)
    return _json(rows)


@_route("GET", "/REPO/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def _resolve(hub: Hub, body: bytes, repo: str, revision: str, path: str) -> Answer:
    files = hub.files(repo, revision)
    if files is None or path not in files:
        return _missing("EntryNotFound" if files is not None else "RevisionNotFound")
    name, commit = files[path], hub.branches[repo].get(revision, revision)
    data = hub.objects[name]
    etag = name if len(data) > LARGE else name[:40]
    return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, data
