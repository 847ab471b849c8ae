"""Opening files that anybody may have put there: regular ones only, so that nothing hangs."""

import errno
import stat
from io import BufferedReader
from pathlib import Path


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading. A FIFO would block and a device never end: for those, and as `open`
    does for what is missing or a folder, raises OSError.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return path.open("rb")
