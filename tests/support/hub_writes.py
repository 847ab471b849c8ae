"""The hub, small, as huggingface_hub uploads to it: new repositories, large files, commits."""

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.support.hub_double import COMMIT, HubDouble


@dataclass
class WritableHub(HubDouble):
    """Takes what a token may write."""

    writers: set[str] = field(default_factory=lambda: {"Bearer hf_writer"})
    large_files: dict[str, bytes] = field(default_factory=dict)
    """What was uploaded, by SHA-256."""
    card_errors: list[str] = field(default_factory=list)
    """What the hub finds wrong with a card."""
    created: list[dict[str, Any]] = field(default_factory=list)

    def write(self, method: str, path: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """As `Double.write`."""
        path = path.partition("?")[0]
        if method == "PUT" and (stored := re.fullmatch(r"/large/([0-9a-f]{64})", path)):
            self.large_files[stored[1]] = body
            return 200, b"", {}
        if path == "/api/validate-yaml":
            errors = [{"message": message} for message in self.card_errors]
            return _json({"errors": errors, "warnings": []}, 400 if errors else 200)
        if self.token not in self.writers:
            return 403, b"", {"X-Error-Message": "no write access"}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main", path):
            return _json({"files": [self._mode(file) for file in json.loads(body)["files"]]})
        if re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            return _json({"objects": [self._place(each) for each in json.loads(body)["objects"]]})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            return self._commit(found[1], body)
        return super().write(method, path, body)

    def _create(self, asked: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        name = f"{asked['organization']}/{asked['name']}"
        self.created.append(asked)
        self.repositories.setdefault(("model", name), {})
        return _json({"url": f"{self.url}/{name}", "name": name})

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith(".safetensors")
        mode = "lfs" if large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def _place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self.url}/large/{wanted['oid']}"}
        return {**wanted, "actions": {"upload": upload}}

    def _commit(self, name: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        files = self.repositories[("model", name)]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large_files[value["oid"]]
        url = f"{self.url}/{name}/commit/{COMMIT}"
        return _json({"success": True, "commitOid": COMMIT, "commitUrl": url})


def _json(value: Any, code: int = 200) -> tuple[int, bytes, dict[str, str]]:
    return code, json.dumps(value).encode(), {"Content-Type": "application/json"}
