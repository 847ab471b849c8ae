"""No page shows whose machine it was made on: paths, host names and the user's name go."""

import getpass
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

PATH = re.compile(r"(?<![\w.:/<>~-])(?:~[\w.-]*)?(?:/[\w.@+=,:-]+){2,}/?")
"""A path from the root or from a home folder, of two names or more."""
SHORTEST_NAME = 3
"""Letters of a user's or a host's name below which it may well be a word."""
COMMON = {"root", "user", "localhost", "admin", "nobody", "ubuntu"}
"""Names that say nothing of anybody."""


class Scrubber:
    """Takes them out of every text that a page shows."""

    def __init__(self, folders: Mapping[Path, str], hosts: Iterable[str] = ()) -> None:
        """`folders`: what a known folder is called instead, such as `data:`. `hosts` are named
        besides this one.
        """
        known = {str(path): name for path, name in folders.items() if len(path.parts) > 1}
        self._folders = sorted(known.items(), key=lambda item: -len(item[0]))
        names = {name for full in (*hosts, socket.gethostname()) for name in (full, _short(full))}
        names.add(_user())
        self._names = [
            re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
            for name in sorted(names, key=len, reverse=True)
            if len(name) >= SHORTEST_NAME and name.lower() not in COMMON
        ]

    def __call__(self, text: str) -> str:
        """The text without them."""
        for folder, name in self._folders:
            text = text.replace(f"{folder}/", f"{name}/" if not name.endswith(":") else name)
            text = re.sub(rf"{re.escape(folder)}(?![\w-])", name, text)
        text = PATH.sub(lambda found: f".../{Path(found.group()).name}", text)
        for pattern in self._names:
            text = pattern.sub("[name]", text)
        return text


def _short(host: str) -> str:
    return host.partition(".")[0]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, in a container
        return ""
