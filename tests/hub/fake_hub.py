"""A hub of the size that detkit needs, behind the real huggingface_hub client: repositories in memory."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.web import Web, respond, status

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass
class Repository:
    """private, files by name, and branches that were made."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    branches: list[str] = field(default_factory=lambda: ["main"])
    large: dict[str, bytes] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """Changes with the content."""
        return hashlib.sha1(repr(sorted(self.files.items())).encode(), usedforsecurity=False).hexdigest()


class FakeHub:
    """Serves `repositories` below `web.url`; what is uploaded lands in them."""

    def __init__(self, web: Web) -> None:
        self.web = web
        self.repositories: dict[str, Repository] = {}
        self.gated: set[str] = set()
        web.fallback = self.answer

    def answer(self, handler: Any) -> None:
        """One request of the client."""
        path, _, _ = handler.path.partition("?")
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length)
        for pattern, method in (
            (r"/api/repos/create", self.create),
            (r"/api/validate-yaml", lambda handler, body: self.send(handler, {"errors": [], "warnings": []})),
            (r"/api/(?:models|datasets)/([\w.-]+/[\w.-]+)(?:/revision/([^/]+))?", self.info),
            (r"/api/(?:models|datasets)/([\w.-]+/[\w.-]+)/tree/([^/]+)(?:/.*)?", self.tree),
            (r"/api/models/([\w.-]+/[\w.-]+)/branch/([^/]+)", self.branch),
            (r"/api/models/([\w.-]+/[\w.-]+)/preupload/([^/]+)", self.preupload),
            (r"/api/models/([\w.-]+/[\w.-]+)/commit/([^/]+)", self.commit),
            (r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", self.batch),
            (r"/upload/([0-9a-f]{64})", self.upload),
            (r"/(?:datasets/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", self.resolve),
        ):
            if match := re.fullmatch(pattern, path):
                return method(handler, body, *match.groups())
        return status(404)(handler)

    def create(self, handler: Any, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if not handler.headers.get("Authorization"):
            return self.refuse(handler, 401, "RepoNotFound")
        if name in self.repositories:
            return self.send(handler, {"error": "exists", "url": f"{self.web.url}/{name}"}, 409)
        self.repositories[name] = Repository(private=bool(asked.get("private")) or asked.get("visibility") == "private")
        return self.send(handler, {"url": f"{self.web.url}/{name}", "name": name, "id": name})

    def info(self, handler: Any, body: bytes, name: str, revision: str | None) -> None:
        if name in self.gated:
            return self.refuse(handler, 403, "GatedRepo")
        if name not in self.repositories:
            return self.refuse(handler, 404, "RepoNotFound")
        repository = self.repositories[name]
        if revision not in (None, repository.commit, *repository.branches):
            return self.refuse(handler, 404, "RevisionNotFound")
        names = [{"rfilename": file} for file in repository.files]
        return self.send(
            handler, {"id": name, "sha": repository.commit, "siblings": names, "private": repository.private}
        )

    def tree(self, handler: Any, body: bytes, name: str, revision: str) -> None:
        self.send(handler, [self.entry(file, content) for file, content in self.repositories[name].files.items()])

    @staticmethod
    def entry(file: str, content: bytes) -> dict[str, Any]:
        """A file as the hub lists it; safetensors are large files, known by their SHA-256."""
        entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": git_hash(content)}
        if file.endswith(".safetensors"):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        return entry

    def branch(self, handler: Any, body: bytes, name: str, branch: str) -> None:
        self.repositories[name].branches.append(branch)
        self.send(handler, {})

    def preupload(self, handler: Any, body: bytes, name: str, revision: str) -> None:
        files = json.loads(body)["files"]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in files
        ]
        self.send(handler, {"files": modes})

    def batch(self, handler: Any, body: bytes, name: str) -> None:
        objects = [
            {
                **item,
                "authenticated": True,
                "actions": {"upload": {"href": f"{self.web.url}/upload/{item['oid']}", "header": {}}},
            }
            for item in json.loads(body)["objects"]
        ]
        self.send(handler, {"transfer": "basic", "objects": objects}, kind="application/vnd.git-lfs+json")

    def upload(self, handler: Any, body: bytes, digest: str) -> None:
        assert hashlib.sha256(body).hexdigest() == digest
        for repository in self.repositories.values():
            repository.large[digest] = body
        self.send(handler, {})

    def commit(self, handler: Any, body: bytes, name: str, revision: str) -> None:
        import base64

        repository = self.repositories[name]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = repository.large[value["oid"]]
        address = f"{self.web.url}/{name}/commit/{repository.commit}"
        self.send(handler, {"commitUrl": address, "commitOid": repository.commit, "hookOutput": ""})

    def resolve(self, handler: Any, body: bytes, name: str, revision: str, file: str) -> None:
        repository = self.repositories.get(name)
        if repository is None or file not in repository.files:
            return self.refuse(handler, 404, "EntryNotFound")
        content = repository.files[file]
        tag = hashlib.sha256(content).hexdigest() if file.endswith(".safetensors") else git_hash(content)
        self.web.files[handler.path.partition("?")[0]] = content
        handler.more_headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{tag}"'}
        return respond(self.web, handler, again=True)

    def refuse(self, handler: Any, code: int, kind: str) -> None:
        handler.send_response(code)
        handler.send_header("X-Error-Code", kind)
        handler.send_header("X-Error-Message", kind)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    @staticmethod
    def send(handler: Any, content: Any, code: int = 200, kind: str = "application/json") -> None:
        text = json.dumps(content).encode()
        handler.send_response(code)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(text)


def git_hash(content: bytes) -> str:
    """The name that git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
