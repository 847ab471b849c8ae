"""What a run measured and fed, step by step: metrics.jsonl, feed.jsonl and the hash chain that ties
them together.

One line per optimiser step in each file. `metrics.jsonl` holds loss, rates and counts; `feed.jsonl`
the sample ids and the image digests in official order. `chain` of line i = SHA-256 of chain i-1 and
of the line's ids, images, loss and gradient norm; chain 0 is the run's own hash. So one hash stands
for everything a run saw and computed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from densekit.batching.certificate import step_digest
from densekit.errors import DataError
from densekit.files.hashing import canonical_json

METRICS_FILE = "metrics.jsonl"
FEED_FILE = "feed.jsonl"
LINKED = ("ids", "images", "loss", "grad_norm")


def chain_next(previous: str, record: Mapping[str, Any]) -> str:
    """The chain hash of a metrics line, given that of the line before (hex)."""
    linked = canonical_json({name: record[name] for name in LINKED}).decode()
    return hashlib.sha256(f"{previous}\n{linked}".encode()).hexdigest()


def images_digest(images: Sequence[str | None]) -> str:
    """One digest for a step's image digests; a text-only sample counts as `-`."""
    return step_digest([image or "-" for image in images])


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far the records reached: what a checkpoint remembers of them."""

    steps: int = 0
    metrics_bytes: int = 0
    feed_bytes: int = 0
    chain: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Records:
    """The two files of a run, open for appending; only rank 0 of a trainer has one."""

    def __init__(self, folder: Path, position: Position, *, keep_in: Path | None = None) -> None:
        """Continue after `position`; what lies behind it is moved into the folder `keep_in`, if
        given, else cut off.

        Raises DataError when a file ends before `position`.
        """
        self.steps, self.chain = position.steps, position.chain
        self._metrics = _open_at(folder / METRICS_FILE, position.metrics_bytes, keep_in)
        self._feed = _open_at(folder / FEED_FILE, position.feed_bytes, keep_in)

    def append(
        self, record: dict[str, Any], samples: Sequence[str], images: Sequence[str | None]
    ) -> dict[str, Any]:
        """Write one step; returns the metrics line with `ids`, `images` and `chain` in it."""
        record = {**record, "ids": step_digest(samples), "images": images_digest(images)}
        record["chain"] = self.chain = chain_next(self.chain, record)
        self.steps += 1
        # The feed first: a metrics line always has its evidence.
        for file, value in (
            (
                self._feed,
                {"step": record["step"], "samples": list(samples), "images": list(images)},
            ),
            (self._metrics, record),
        ):
            file.write(json.dumps(value).encode() + b"\n")
            file.flush()
        return record

    def position(self) -> Position:
        """Where the files end now, flushed to disk."""
        for file in (self._metrics, self._feed):
            os.fsync(file.fileno())
        return Position(
            steps=self.steps,
            metrics_bytes=self._metrics.tell(),
            feed_bytes=self._feed.tell(),
            chain=self.chain,
        )

    def __enter__(self) -> "Records":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._metrics.close()
        self._feed.close()


def _open_at(path: Path, size: int, keep_in: Path | None) -> BinaryIO:
    file = path.open("a+b")
    length = file.seek(0, os.SEEK_END)
    if length < size:
        file.close()
        raise DataError(
            f"{path} is shorter than its checkpoint says ({length} of {size} bytes): it was cut off or "
            "replaced; put the file back, or train anew with --force"
        )
    if length > size and keep_in is not None:
        file.seek(size)
        with (keep_in / path.name).open("wb") as kept:
            shutil.copyfileobj(file, kept)
            kept.flush()
            os.fsync(kept.fileno())
    file.truncate(size)
    file.seek(0, os.SEEK_END)
    return file
