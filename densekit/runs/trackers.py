"""Where a run's figures go besides its own records, when that was asked for: names, packages, and
what is said where a package is missing.

Nothing computed depends on it: it belongs to an attempt, and no hash of a run covers it.
"""

from collections.abc import Sequence
from importlib.util import find_spec

from densekit.errors import UsageError
from densekit.spec.types import TrackerName

PACKAGES: dict[TrackerName, str] = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""What each is read and written with, as pip names it."""


def parse_trackers(text: str | None) -> tuple[TrackerName, ...]:
    """The words of `--log`, e.g. `tensorboard,wandb`. Raises UsageError for another word."""
    found: list[TrackerName] = []
    for word in filter(None, (part.strip() for part in (text or "").split(","))):
        known = next((name for name in PACKAGES if name == word), None)
        if known is None:
            raise UsageError(f"--log {word}: give {' or '.join(PACKAGES)}, or both with a comma")
        found.append(known)
    return tuple(dict.fromkeys(found))


def require_trackers(names: Sequence[TrackerName]) -> None:
    """Raise UsageError, with the command, for a tracker whose package this Python lacks."""
    missing = [PACKAGES[name] for name in names if find_spec(PACKAGES[name]) is None]
    if missing:
        raise UsageError(
            f"--log {','.join(names)}: not installed where the run trains: "
            f"`pip install {' '.join(missing)}`, or omit --log (metrics.jsonl has every figure; "
            "`densekit curves` draws them)"
        )
