"""A stand-in for the Hugging Face Hub on this machine: repositories, commits, large files, as its HTTP interface has them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

TOKEN = "made-up"
_NAME = r"(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass
class Repository:
    """Branches and the files of every commit: path → (content, whether it is a large file)."""

    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, tuple[bytes, bool]]] = field(default_factory=dict)
    private: bool = False

    def commit(self, branch: str, files: dict[str, tuple[bytes, bool]]) -> str:
        """Add a commit to a branch."""
        text = f"{len(self.commits)}{sorted(files)}"
        name = hashlib.sha1(text.encode()).hexdigest()
        self.branches[branch], self.commits[name] = name, files
        return name

    def find(self, revision: str) -> str | None:
        """The commit that a branch or a commit's name means."""
        name = self.branches.get(revision, revision)
        return name if name in self.commits else None


class Hub:
    """The server, as a context manager.

    Attributes:
        repositories: by name.
        requests: method and path of every request.
        down: answer every request with 503.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.down = False
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def _handle(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.down:
            return self._answer(503, {"error": "down"})
        known = self.headers.get("authorization") == f"Bearer {TOKEN}"
        if self.command == "POST" and path != "/api/validate-yaml" and not known:
            return self._answer(401, {"error": "Invalid username or password."})
        for pattern, method in _ROUTES:
            if (found := re.fullmatch(pattern, f"{self.command} {path}")) is not None:
                return getattr(self, method)(body, **found.groupdict())
        return self._answer(404, {"error": f"unknown: {self.command} {path}"})

    def _answer(self, code: int, value: Any, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for key, entry in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key.replace("_", "-"), entry)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _missing(self, what: str) -> None:
        self._answer(404, {"error": f"{what} not found"}, X_Error_Code=f"{what}NotFound")

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.hub.repositories:
            return self._answer(
                409, {"error": "You already created this model repo", "url": f"{self.hub.address}/{name}"}
            )
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        repository = self.hub.repositories[name] = Repository(private=private)
        repository.commit("main", {".gitattributes": (b"*.safetensors filter=lfs\n", False)})
        return self._answer(200, {"url": f"{self.hub.address}/{name}", "name": name, "id": name})

    def _branch(self, body: bytes, repo: str, rev: str) -> None:
        branches = self.hub.repositories[repo].branches
        if rev in branches:
            return self._answer(409, {"error": "Reference already exists"})
        branches[rev] = branches["main"]
        return self._answer(200, {})

    def _yaml(self, body: bytes) -> None:
        import yaml

        _, head, _ = json.loads(body)["content"].split("---\n", 2)
        assert yaml.safe_load(head)["library_name"] == "ubf_augment"
        self._answer(200, {"errors": [], "warnings": []})

    def _preupload(self, body: bytes, repo: str, rev: str) -> None:
        files = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for f in json.loads(body)["files"]
        ]
        self._answer(200, {"files": files})

    def _batch(self, body: bytes, repo: str) -> None:
        objects = []
        for o in json.loads(body)["objects"]:
            known = o["oid"] in self.hub.large
            put = {"upload": {"href": f"{self.hub.address}/large/{o['oid']}", "header": {}}}
            objects.append({"oid": o["oid"], "size": o["size"], **({} if known else {"actions": put})})
        self._answer(
            200, {"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json"
        )

    def _put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self._answer(200, {})

    def _commit(self, body: bytes, repo: str, rev: str) -> None:
        repository = self.hub.repositories[repo]
        files = dict(repository.commits[repository.branches[rev]])
        for line in body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "file":
                files[value["path"]] = (base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                files[value["path"]] = (self.hub.large[value["oid"]], True)
            elif key == "deletedFile":
                del files[value["path"]]
        name = repository.commit(rev, files)
        self._answer(
            200,
            {"commitUrl": f"{self.hub.address}/{repo}/commit/{name}", "commitOid": name, "hookOutput": ""},
        )

    def _info(self, body: bytes, repo: str, rev: str = "main") -> None:
        repository = self.hub.repositories.get(repo)
        if repository is None:
            return self._missing("Repo")
        if (name := repository.find(rev)) is None:
            return self._missing("Revision")
        siblings = [{"rfilename": path} for path in repository.commits[name]]
        return self._answer(
            200,
            {"id": repo, "modelId": repo, "sha": name, "siblings": siblings, "tags": [], "private": False},
        )

    def _tree(self, body: bytes, repo: str, rev: str) -> None:
        repository = self.hub.repositories[repo]
        name = repository.find(rev)
        assert name is not None
        entries = []
        for path, (data, large) in repository.commits[name].items():
            entry: dict[str, Any] = {
                "type": "file",
                "path": path,
                "size": len(data),
                "oid": hashlib.sha1(data).hexdigest(),
            }
            if large:
                entry["lfs"] = {
                    "oid": hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    "pointerSize": 130,
                }
            entries.append(entry)
        self._answer(200, entries)

    def _resolve(self, body: bytes, repo: str, rev: str, path: str) -> None:
        repository = self.hub.repositories[repo]
        name = repository.find(rev)
        if name is None or path not in repository.commits[name]:
            return self._missing("Entry")
        data, large = repository.commits[name][path]
        etag = (hashlib.sha256 if large else hashlib.sha1)(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X_Repo_Commit": name, "Accept_Ranges": "bytes"}
        return self._answer(200, data, **headers)


_REV = r"(?P<rev>[^/]+)"
_ROUTES = (
    (r"POST /api/repos/create", "_create"),
    (r"POST /api/validate-yaml", "_yaml"),
    (rf"POST /api/models/{_NAME}/branch/{_REV}", "_branch"),
    (rf"POST /api/models/{_NAME}/preupload/{_REV}", "_preupload"),
    (rf"POST /api/models/{_NAME}/commit/{_REV}", "_commit"),
    (rf"GET /api/models/{_NAME}/revision/{_REV}", "_info"),
    (rf"GET /api/models/{_NAME}/tree/{_REV}", "_tree"),
    (rf"GET /api/models/{_NAME}", "_info"),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", "_batch"),
    (r"PUT /large/(?P<oid>[0-9a-f]{64})", "_put"),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/{_REV}/(?P<path>.+)", "_resolve"),
)
