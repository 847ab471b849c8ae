"""launch.json of an attempt: which launcher started it, and how that launcher finds it again.

The file holds `launcher`, `host`, and beside them what the launcher itself needs, such as `pid`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from densekit.errors import DataError
from densekit.files.json_files import read_object, write_json
from densekit.runs.layout import WorkDir

LAUNCH_FILE = "launch.json"
REMEDY = "delete it, and end what it names by hand"


@dataclass(frozen=True, kw_only=True)
class ProcessHandle:
    """What the latest attempt of a run runs as: a process, a container, a job."""

    run: WorkDir
    launcher: str
    """Its name in the registry."""
    host: str
    """The machine whose driver started it."""
    details: Mapping[str, str | int]
    """What only the launcher reads."""

    def text(self, name: str) -> str:
        """A detail that is a string; DataError where it is none."""
        value = self.details.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def number(self, name: str) -> int:
        """A detail that is a whole number; DataError where it is none."""
        value = self.details.get(name)
        if not isinstance(value, int):
            raise self._wrong(name, "a whole number")
        return value

    def _wrong(self, name: str, kind: str) -> DataError:
        return DataError(
            f"{self.run.attempt / LAUNCH_FILE}: `{name}` must be {kind}: it names what the "
            f"{self.launcher} launcher started"
        )


def write_handle(handle: ProcessHandle) -> None:
    """Note how the latest attempt of the handle's run was started."""
    value = {"launcher": handle.launcher, "host": handle.host, **handle.details}
    write_json(handle.run.attempt / LAUNCH_FILE, value)


def read_handle(run: WorkDir) -> ProcessHandle | None:
    """How the latest attempt was started; None where nothing was started or nobody noted it.

    Raises DataError for a file that densekit did not write.
    """
    path = run.attempt / LAUNCH_FILE
    if not path.is_file():
        return None
    names = ("launcher", "host")
    value = read_object(path, *names, remedy=REMEDY)
    for name in names:
        if not isinstance(value[name], str):
            raise DataError(f"{path}: `{name}` must be a string; {REMEDY}")
    details = {  # files of 0.1.0 hold null for what other launchers would need
        name: part for name, part in value.items() if name not in names and part is not None
    }
    return ProcessHandle(run=run, launcher=value["launcher"], host=value["host"], details=details)
