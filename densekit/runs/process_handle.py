"""launch.json of an attempt: which launcher started it, and under which name its processes are
found again.
"""

from dataclasses import asdict, dataclass
from typing import Any

from densekit.files.json_files import read_json, write_json
from densekit.runs.layout import RunDir

LAUNCH_FILE = "launch.json"


@dataclass(frozen=True, kw_only=True)
class Launched:
    """Where an attempt runs; exactly one of `pid`, `container` and `job` says which process,
    container or job it is.
    """

    launcher: str
    host: str
    """The machine of the driver that started it."""
    pid: int | None = None
    """Process group on `host`."""
    container: str | None = None
    image: str | None = None
    """The engine's id of the container's image."""
    job: str | None = None
    """Slurm's job id."""

    @property
    def place(self) -> str:
        """In words."""
        if self.container:
            return f"container {self.container} on {self.host}"
        return f"Slurm job {self.job}" if self.job else f"process {self.pid} on {self.host}"


def write_launched(run: RunDir, launched: Launched) -> None:
    """Note how the latest attempt was started."""
    write_json(run.attempt / LAUNCH_FILE, asdict(launched))


def read_launched(run: RunDir) -> Launched | None:
    """How the latest attempt was started; None where nobody noted it. DataError for a file of
    another kind.
    """
    path = run.attempt / LAUNCH_FILE
    if not path.is_file():
        return None
    value: dict[str, Any] = read_json(path)
    return Launched(**{name: value.get(name) for name in Launched.__dataclass_fields__})  # type: ignore[arg-type]
