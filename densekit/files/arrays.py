"""Arrays kept in a cache: a file appears whole, whoever writes it at the same time."""

import os
from pathlib import Path
from typing import Any

import numpy as np


def keep_arrays(path: Path, **arrays: Any) -> None:
    """Write an .npz file under a name of this process, then rename it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        np.savez(temporary, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
