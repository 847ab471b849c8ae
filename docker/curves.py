"""TensorBoard over run directories: every number of their metrics.jsonl as a curve, followed while
they train.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tensorboard.summary import Writer

SECONDS = 5
PORT = "6006"


@dataclass
class Followed:
    """One metrics file and how far it has been read."""

    metrics: Path
    events: Path
    offset: int = 0
    inode: int = 0
    writer: Writer = field(init=False)

    def __post_init__(self) -> None:
        self.writer, self.inode = Writer(str(self.events)), self.metrics.stat().st_ino

    def read_on(self) -> None:
        """Write what was added since; start over when the file was cut (a new attempt) or is
        another one (--force).
        """
        state = self.metrics.stat()
        if state.st_size < self.offset or state.st_ino != self.inode:
            self.writer.close()
            shutil.rmtree(self.events)
            self.writer, self.offset = Writer(str(self.events)), 0
        self.inode = state.st_ino
        with self.metrics.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                self.offset += len(line)
                step = json.loads(line)
                for name, value in step.items():
                    if name != "step" and isinstance(value, int | float):
                        self.writer.add_scalar(name, value, step["step"])
        self.writer.flush()


def follow(runs: Path, events: Path, followed: dict[Path, Followed]) -> None:
    """Read on in every run below `runs`."""
    for metrics in sorted(runs.glob("*/metrics.jsonl")):
        with suppress(FileNotFoundError):  # set aside in this moment
            if metrics not in followed:
                followed[metrics] = Followed(metrics, events / metrics.parent.name)
            followed[metrics].read_on()


def main() -> None:
    """Serve until stopped; ends when TensorBoard does."""
    runs, events = Path(sys.argv[1]), Path(tempfile.mkdtemp())
    followed: dict[Path, Followed] = {}
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(events),
        "--port",
        PORT,
        "--bind_all",
    ]
    with subprocess.Popen(command) as server:
        try:
            while server.poll() is None:
                follow(runs, events, followed)
                time.sleep(SECONDS)
        finally:
            server.terminate()
    sys.exit(server.returncode)


if __name__ == "__main__":
    main()
