"""The hub, small: repositories at commits, listed and served as huggingface_hub asks for them."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.support.http_double import Double

COMMIT = "a" * 40
_INFO = r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?"


@dataclass
class HubDouble(Double):
    """Repositories by (kind, name): their files by name. Other paths are files, as in `Double`."""

    repositories: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    """Repositories whose files want a token."""
    commit: str = COMMIT
    large: int = 1000
    """Files of so many bytes are in large-file storage, listed with their SHA-256."""

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """As `Double.answer`."""
        path = path.partition("?")[0]
        if found := re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?", path
        ):
            return self._info(found[1].removesuffix("s"), found[2], found[3] or "main")
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file("dataset" if found[1] else "model", found[2], found[3], found[4])
        return super().answer(path)

    def _info(self, kind: str, name: str, revision: str) -> tuple[int, bytes, dict[str, str]]:
        files = self.repositories.get((kind, name))
        if files is None:
            return 401, b"", {"X-Error-Code": "RepoNotFound"}
        if revision not in ("main", self.commit):
            return 404, b"", {"X-Error-Code": "RevisionNotFound"}
        siblings: list[dict[str, Any]] = []
        for rfilename, body in files.items():
            sibling = {"rfilename": rfilename, "size": len(body), "blobId": git_blob(body)}
            if len(body) >= self.large:
                sha256 = hashlib.sha256(body).hexdigest()
                sibling["lfs"] = {"sha256": sha256, "size": len(body), "pointerSize": 134}
            siblings.append(sibling)
        info = {"id": name, "sha": self.commit, "siblings": siblings, "private": False, "tags": []}
        return 200, json.dumps(info).encode(), {"Content-Type": "application/json"}

    def _file(
        self, kind: str, name: str, revision: str, file: str
    ) -> tuple[int, bytes, dict[str, str]]:
        body = self.repositories.get((kind, name), {}).get(file)
        if body is None or revision not in ("main", self.commit):
            return 404, b"", {"X-Error-Code": "EntryNotFound"}
        if name in self.gated and self.token is None:
            return 401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}
        large = len(body) >= self.large
        etag = hashlib.sha256(body).hexdigest() if large else git_blob(body)
        return 200, body, {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit}


def git_blob(body: bytes) -> str:
    """git's name of a file's content."""
    return hashlib.sha1(f"blob {len(body)}\0".encode() + body).hexdigest()
