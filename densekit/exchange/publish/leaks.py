"""What must not be published: where and by whom a model was trained."""

import re
from pathlib import Path

from densekit.errors import DataError
from densekit.files.machine_names import as_word, host_names, user_name

TEXT = (".md", ".json", ".jinja", ".txt")
LOCAL_PATH = re.compile(r"(?<![\w.:/>-])/(?:home|root|Users|mnt|scratch|data|tmp|opt)/[\w.-]+")
SHORTEST = 4
"""A host of fewer letters is a word that a card may use."""


def check_leaks(folder: Path, *, name: str) -> None:
    """Raise DataError where a text file of `folder` names a local path, the home folder, the user
    or the host. The repository's own `name` may contain either.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix not in TEXT or path.name == "tokenizer.json":  # tokens are of no machine
            continue
        text = path.read_text(encoding="utf-8", errors="replace").replace(name, "")
        if found := _leaked(text):
            raise DataError(
                f"{path} names {found} of this machine, which would be published: take it out of "
                "the file, or out of the recipe it is from"
            )


def _leaked(text: str) -> str | None:
    if match := LOCAL_PATH.search(text):
        return f"the path {match[0]}"
    for place in {str(Path.home()), str(Path.cwd())}:
        if len(place) > 1 and place in text:
            return f"the folder {place}"
    for host in sorted(host_names(), key=len, reverse=True):
        if len(host) >= SHORTEST and as_word(host).search(text):
            return f"the host {host}"
    user = user_name()
    if user is None:
        return None
    # A user may be called what a card speaks of.
    name = re.escape(user)
    if match := re.search(rf"(?:[/~]{name}(?=[/\s\"'`]))|\b{name}@", text):
        return f"the user ({match[0]})"
    return None
