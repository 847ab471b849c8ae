"""Arrays kept in a cache: a file appears whole, whoever writes it at the same time."""

from pathlib import Path
from typing import Any

import numpy as np

from densekit.files.whole import written_whole


def keep_arrays(path: Path, **arrays: Any) -> None:
    """Write an .npz file, and its folder where there is none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
