"""Which disk a path is on, or will be, and what room is left there."""

import shutil
from pathlib import Path


def disk(place: Path) -> int:
    """The number of the disk of a path that need not exist yet."""
    return _existing(place).stat().st_dev


def free_bytes(place: Path) -> int:
    """Room on the disk of a path that need not exist yet."""
    return shutil.disk_usage(_existing(place)).free


def _existing(place: Path) -> Path:
    place = place.resolve()
    while not place.exists():
        place = place.parent
    return place
