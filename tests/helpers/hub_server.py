"""A hub over loopback: what the client of the Hugging Face hub asks of it, from folders held in memory.

Info of a model and of a revision, the listing of a commit, files by HEAD and GET with ETag, commit and ranges; refusals as
the hub words them. Every request is kept, and a download can be broken halfway.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from loopback_server import answering

TOKEN, EXPIRED = "hf_let_me_in", "hf_expired"


@dataclass
class Repository:
    """Commits by their hash, names of branches and tags, and who may read."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: dict[str, bytes], *refs: str) -> str:
        """A new commit of these files, to which the names then point."""
        whole = hashlib.sha1(str(len(self.commits)).encode())
        for name, content in sorted(files.items()):
            whole.update(name.encode() + content)
        self.commits[whole.hexdigest()] = dict(files)
        self.refs.update(dict.fromkeys(refs, whole.hexdigest()))
        return whole.hexdigest()


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    range: str | None

    @property
    def file(self) -> str:
        """Name of the file that was asked for."""
        return self.path.rpartition("/")[2]


class HubServer(ThreadingHTTPServer):
    """Serves `repositories`, by `org/name`, at `endpoint`.

    Attributes:
        requests: all that came, in order.
        broken: files whose next download is cut off halfway; true if they are then not to be had until taken off this.
        cut: those that have been.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Asked] = []
        self.broken: dict[str, bool] = {}
        self.cut: set[str] = set()

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def got(self, method: str = "GET") -> list[str]:
        """Files that were asked for so."""
        return [asked.file for asked in self.requests if asked.method == method and "/resolve/" in asked.path]


def serving() -> AbstractContextManager[HubServer]:
    """A hub that answers while the context lasts."""
    return answering(HubServer())


def folder_files(folder: Path) -> dict[str, bytes]:
    """The files of a folder, as a commit holds them."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


class _Refused(Exception):
    """An answer that is an error: status, the hub's word for it, and perhaps its message."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: object) -> None:
        """Nothing on the console."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(Asked(self.command, path, self.headers.get("Range")))
        try:
            if self.headers.get("Authorization") == f"Bearer {EXPIRED}":
                raise _Refused(401, "", "Invalid credentials in Authorization header")
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
                self._describe(*found.groups())
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._file(*found.groups())
            else:
                raise _Refused(404, "RepoNotFound")
        except _Refused as refused:
            status, *words = refused.args
            self._send(status, b"", dict(zip(("X-Error-Code", "X-Error-Message"), words, strict=False)))

    def _repository(self, name: str) -> Repository:
        found = self.server.repositories.get(name)
        if found is None:
            raise _Refused(401, "RepoNotFound")
        return found

    def _commit(self, name: str, revision: str) -> str:
        repository = self._repository(name)
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            raise _Refused(404, "RevisionNotFound")
        return commit

    def _describe(self, name: str, kind: str | None, revision: str | None) -> None:
        commit = self._commit(name, revision or "main")
        files = self._repository(name).commits[commit]
        listing: object
        if kind == "tree":
            listing = [_entry(path, content) for path, content in files.items()]
        else:
            listing = {"id": name, "modelId": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]}
        self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, path: str) -> None:
        commit = self._commit(name, revision)
        repository = self._repository(name)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repository.gated and token != TOKEN:
            raise _Refused(403 if token else 401, "GatedRepo")
        content = repository.commits[commit].get(path)
        if content is None:
            raise _Refused(404, "EntryNotFound")
        headers = {"ETag": f'"{_etag(path, content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        start = 0
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.command == "GET" and path in self.server.broken:
            if path not in self.server.cut:
                self.server.cut.add(path)
                self._send(200, content, headers, until=len(content) // 2)
                return
            if self.server.broken[path]:
                raise _Refused(503, "ServiceUnavailable")
        self._send(206 if start else 200, content[start:], headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str], until: int | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:until])
        if until is not None:
            self.close_connection = True


def _etag(path: str, content: bytes) -> str:
    """SHA-256 of what is in large file storage, and as git names a blob of what is not."""
    if path.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, object]:
    entry = {"type": "file", "path": path, "size": len(content), "oid": _etag(path, content)[:40]}
    if path.endswith(".safetensors"):
        entry["lfs"] = {"oid": _etag(path, content), "size": len(content), "pointerSize": 134}
    return entry
