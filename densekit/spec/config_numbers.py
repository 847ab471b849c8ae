"""Numbers of things in a model's config.json: which are read, and how large they may be."""

import json
from typing import Any

from densekit.errors import DataError

CONFIG = "config.json"
MAX_NUMBER = 1 << 24
"""Of a width or a vocabulary."""
MAX_LAYERS = 1000
"""Each is a module, on the meta device too."""
MAX_EDGE = 4096
"""Of a tower's input, in pixels."""
LAYERS = ("num_hidden_layers", "n_layer")
"""What configurations call the number of layers."""


def config_number(
    config: dict[str, Any], key: str, reference: str, default: int | None = None
) -> int:
    """What a config.json counts under `key`, `default` where it is silent. Raises DataError, which
    names the file, for what is no such number.
    """
    value = config.get(key)
    if value is None:
        value = default
    if not is_count(key, value):
        raise DataError(
            f"{reference}/{CONFIG}: {key} must be a positive integer, not {json.dumps(value)[:60]}"
            f" (at most {most(key)})"
        )
    assert isinstance(value, int)
    return value


def is_count(key: str, value: object) -> bool:
    """Whether a value of a config.json is a number of the things that `key` counts."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most(key)


def most(key: str) -> int:
    """The largest number that is read of what `key` counts."""
    if key == "image_size":
        return MAX_EDGE
    return MAX_LAYERS if key in LAYERS else MAX_NUMBER
