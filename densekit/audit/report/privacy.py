"""No page shows whose machine it was made on: paths, host names and the user's name go."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from densekit.files.machine_names import as_word, host_names, user_name

PATH = re.compile(r"(?<![\w.:/<>~-])(?:~[\w.-]*)?(?:/[\w.@+=,:-]+){2,}/?")
"""A path from the root or from a home folder, of two names or more."""


class Scrubber:
    """Takes them out of every text that a page shows."""

    def __init__(self, folders: Mapping[Path, str], hosts: Iterable[str] = ()) -> None:
        """`folders`: what a known folder is called instead, such as `data:`. `hosts` are named
        besides this one.
        """
        known = {str(path): name for path, name in folders.items() if len(path.parts) > 1}
        self._folders = sorted(known.items(), key=lambda item: -len(item[0]))
        names = host_names(hosts) | ({user} if (user := user_name()) else set())
        self._names = [as_word(name) for name in sorted(names, key=len, reverse=True)]

    def __call__(self, text: str) -> str:
        """The text without them."""
        for folder, name in self._folders:
            text = text.replace(f"{folder}/", f"{name}/" if not name.endswith(":") else name)
            text = re.sub(rf"{re.escape(folder)}(?![\w-])", name, text)
        text = PATH.sub(lambda found: f".../{Path(found.group()).name}", text)
        for pattern in self._names:
            text = pattern.sub("[name]", text)
        return text
