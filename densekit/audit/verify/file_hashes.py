"""Whether files still have the hashes that were recorded of them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from densekit.files.hashing import file_sha256
from densekit.spec.check import Check


def check_file(name: str, path: Path, sha256: str | None, *, source: str, remedy: str) -> Check:
    """Whether a file has the hash that `source` records; missing or unreadable is a failure."""
    try:
        found = file_sha256(path)
    except (OSError, ValueError) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        message = f"{path} {why}, but {source} records its hash; {remedy}"
        return Check(name=name, state="fail", message=message)
    if found != sha256:
        message = (
            f"{path} was changed: its SHA-256 is {found[:16]}..., {source} records "
            f"{str(sha256)[:16]}...; {remedy}"
        )
        return Check(name=name, state="fail", message=message)
    return Check(name=name, state="ok", message=f"{path.name} has the hash that {source} records")


def check_folder(
    name: str, folder: Path, files: Mapping[str, str], *, source: str, remedy: str, ok: str
) -> Iterator[Check]:
    """Every file of a folder, by its path inside it: the failures, or one `ok` with its message."""
    checks = [
        check_file(name, folder / file, sha256, source=source, remedy=remedy)
        for file, sha256 in files.items()
    ]
    failures = [check for check in checks if check.state != "ok"]
    yield from failures or [Check(name=name, state="ok", message=ok)]
