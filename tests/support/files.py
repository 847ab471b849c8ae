"""Files that tests write and folders they look into."""

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> Path:
    """Write a text as it is, anything else as JSON, and the folders above; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())
