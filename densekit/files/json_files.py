"""JSON files of a model's folder, which others wrote."""

import json
from pathlib import Path
from typing import Any

from densekit.errors import DataError


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises DataError for a file that is missing, broken, or holds
    something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; put the model's own file there") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} must hold a JSON object; put the model's own file there")
    return value


def optional_object(path: Path) -> dict[str, Any]:
    """The same, {} where the file is missing."""
    return read_object(path) if path.is_file() else {}
