"""Names that tell whose machine this is: its host's and its user's. Pages leave them out, and
nothing that has them is published.
"""

import getpass
import re
import socket
from collections.abc import Iterable

SHORTEST = 3
"""Letters of a name below which it may well be a word."""
COMMON = {"root", "user", "localhost", "admin", "nobody", "ubuntu"}
"""Names that say nothing of anybody."""


def host_names(more: Iterable[str] = ()) -> set[str]:
    """This host's name and `more`, each also without its domain."""
    full = {socket.gethostname(), *more}
    return {name for host in full for name in (host, host.partition(".")[0]) if _tells(name)}


def user_name() -> str | None:
    """The user's; None for one without a name, as in a container, or whose name tells nothing."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        return None
    return name if _tells(name) else None


def as_word(name: str) -> re.Pattern[str]:
    """Finds a name where it is no part of another word."""
    return re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")


def _tells(name: str) -> bool:
    return len(name) >= SHORTEST and name.lower() not in COMMON
