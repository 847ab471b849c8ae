"""One thing to fetch, a model or a part of a data set, and what a fetch works with."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from densekit.data.fetch.hub import HubClient
from densekit.data.fetch.progress import Progress
from densekit.data.fetch.transfer import Transfer

Subject = Literal["models", "data", "benchmarks", "trajectories"]
"""What `--only` chooses from."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What every job works with."""

    transfer: Transfer
    hub: HubClient
    progress: Progress
    brought: Path | None = None
    """Folder of files that were brought by hand (--from)."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is there of a job, without asking the network."""

    state: Literal["complete", "found", "missing", "by hand"]
    """complete: fetched earlier; found: there, and not by a fetch; by hand: only a person can get
    it.
    """
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes that a job still writes; None where nobody says."""

    download: int | None
    """What comes over the network."""
    stays: int | None
    """What is on the disk in the end."""
    waits: int = 0
    """What is there besides until it is extracted."""


class Job(Protocol):
    """A model, or a part of a data set."""

    @property
    def label(self) -> str:
        """What people call it."""
        ...

    @property
    def subject(self) -> Subject:
        """What it is."""
        ...

    @property
    def root(self) -> Path:
        """The root that it is put below."""
        ...

    @property
    def place(self) -> Path:
        """The file or folder where it is put."""
        ...

    def look(self, tools: Tools) -> Look:
        """What is there."""
        ...

    def shared(self, tools: Tools) -> Hashable:
        """What two jobs have in common that bring the same files: the second one's are links to
        those of the first. None: nothing.
        """
        ...

    def sizes(self, tools: Tools) -> Sizes:
        """Ask the publisher. Raises DataError where it cannot be had."""
        ...

    def fetch(self, tools: Tools) -> None:
        """Get what is missing. Raises DataError or OSError; what came stays."""
        ...
