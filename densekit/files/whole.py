"""Files that appear whole, whoever else writes them at the same time: a name of their own beside
their place first, then one rename.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from densekit.files import durable


def beside(path: Path) -> Path:
    """A hidden name beside `path` that nobody else has.

    It is drawn, not derived from the process: threads share a process id, and so may processes of
    two containers or hosts that write into one folder.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


@contextmanager
def written_whole(path: Path, *, flush: bool = False) -> Iterator[Path]:
    """A file to write beside `path`, renamed to it at the end of the block and removed where that
    raises. `flush` forces the file and its name to disk. Raises OSError, which names `path`.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = beside(path)
    try:
        yield temporary
        if flush:
            durable.fsync(temporary)
            durable.rename(temporary, path)
        else:
            temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
