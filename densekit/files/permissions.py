"""Permissions as the umask has them, for what libraries and temporary folders make without it.

safetensors writes files that only their owner reads, and mkdtemp such folders, whatever the umask:
a colleague could not read the weights of a run that they may list.
"""

import re
from pathlib import Path


def umask() -> int:
    """The umask of this process, read without changing it: other threads write files too."""
    found = re.search(r"^Umask:\s*([0-7]+)$", Path("/proc/self/status").read_text("utf-8"), re.M)
    return int(found[1], 8) if found else 0o022


def follow_umask(path: Path) -> None:
    """Give a file, or a folder with everything in it, the permissions it would have if `open` and
    `mkdir` had made it.
    """
    mask = umask()
    inside = path.rglob("*") if path.is_dir() else ()
    for made in (path, *inside):
        if not made.is_symlink():
            made.chmod((0o777 if made.is_dir() else 0o666) & ~mask)
