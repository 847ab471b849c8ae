"""What a run measured and fed, step by step: metrics.jsonl, feed.jsonl and the hash chain that ties
them together.

One line per optimizer step in each file: a `StepRecord` in metrics.jsonl, a `StepFeed` in
feed.jsonl. `chain` of line i = SHA-256 of chain i-1 and of what line i says but for its times;
chain 0 is the run's own hash. So one hash stands for everything a run saw and computed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, TypeVar

from pydantic import StrictBool, StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError

from densekit.batching.certificate import step_digest
from densekit.errors import DataError
from densekit.files.hashing import canonical_json
from densekit.files.json_files import read_jsonl

METRICS_FILE = "metrics.jsonl"
FEED_FILE = "feed.jsonl"
SCHEMA: Literal[2] = 2
"""Of a line of metrics.jsonl. Lines of schema 1 have no number, and their chain covers less."""
LINKED = {
    1: ("ids", "images", "loss", "grad_norm"),
    SCHEMA: (
        *("schema", "step", "loss", "lr", "grad_norm", "updated", "overflows", "samples"),
        *("tokens", "supervised_tokens", "masked_samples", "ids", "images"),
    ),
}
"""What the chain of a line covers, by schema: in 2 everything but times and memory, which another
run of the same math does not repeat.
"""
ABSENT = (("mfu", None), ("peak_memory_gib", None), ("part_lrs", None))
"""What a line leaves out."""
REMEDY = "put back a copy of the file, or retrain (`densekit run --force`)"


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """What the trainer measured in one optimizer step, summed over ranks and micro-batches."""

    step: StrictInt
    """Counted from 1."""
    loss: StrictFloat | None
    """Weighted sum over the label positions; null when it is not finite."""
    lr: StrictFloat
    """Learning rate of the language model's group, or of the only one."""
    grad_norm: StrictFloat | None
    """2-norm of the gradient before clipping; null in a step that overflowed."""
    updated: StrictBool
    """Whether weights changed: false where fp16 gradients overflowed."""
    overflows: StrictInt
    """Attempts at this step whose fp16 gradients overflowed."""
    samples: StrictInt
    tokens: StrictInt
    """Of the packed sequences, image features included."""
    supervised_tokens: StrictInt
    """Label positions."""
    masked_samples: StrictInt
    """Samples without a label position."""
    seconds: StrictFloat = 0.0
    """Wall time since the step before, waiting for data and saving included."""
    data_seconds: StrictFloat = 0.0
    """Of it: rank 0 had no batch, and its device nothing to do. This and the two below are 0 in
    lines that were written before they were measured.
    """
    compute_seconds: StrictFloat = 0.0
    """Of it: from the first forward pass to the update, on rank 0's device."""
    tokens_per_second: StrictFloat = 0.0
    """Tokens of all ranks by `seconds`."""
    part_lrs: dict[StrictStr, StrictFloat] | None = None
    """Learning rates of language model, connector and tower, where the tower is trained; else the
    line has no such key.
    """
    mfu: StrictFloat | None = None
    """Model FLOPs utilisation: the share of all GPUs' dense peak that the model's own operations
    take, without recomputed ones. The line has it where the GPU and its peak are known, so never
    on a CPU.
    """
    peak_memory_gib: StrictFloat | None = None
    """The most that tensors took of rank 0's GPU in this step, GiB; on a CPU the line has no such
    key.
    """


@dataclass(frozen=True, kw_only=True)
class StepRecord(StepMetrics):
    """One line of metrics.jsonl: what was measured, and what ties it to the feed and to the line
    before.
    """

    ids: StrictStr
    """Digest of the step's sample ids."""
    images: StrictStr
    """Digest of its image digests."""
    chain: StrictStr
    schema: Literal[1, 2] = 1
    """Of the line; 1 where it has none."""


@dataclass(frozen=True, kw_only=True)
class StepFeed:
    """One line of feed.jsonl: the samples of one step in official order."""

    step: StrictInt
    samples: list[StrictStr]
    """Their ids."""
    images: list[StrictStr | None]
    """The digest of each one's image; null for text only."""


def read_steps(path: Path, *, size: int | None = None) -> list[StepRecord]:
    """The steps of a metrics.jsonl, or of its first `size` bytes.

    Raises DataError when it cannot be read, and for a line that is not the next step or lacks what
    a step records.
    """
    return _read_lines(path, StepRecord, size)


def read_feed(path: Path, *, size: int | None = None) -> list[StepFeed]:
    """The steps of a feed.jsonl, or of its first `size` bytes. Raises as read_steps, and for a step
    with more samples than image digests or fewer.
    """
    steps = _read_lines(path, StepFeed, size)
    for fed in steps:
        if len(fed.samples) != len(fed.images):
            raise DataError(
                f"{path}: line {fed.step} has {len(fed.samples)} samples and {len(fed.images)} "
                f"image digests: it was edited; {REMEDY}"
            )
    return steps


Line = TypeVar("Line", StepRecord, StepFeed)


def _read_lines(path: Path, kind: type[Line], size: int | None) -> list[Line]:
    adapter = TypeAdapter(kind)
    found: list[Line] = []
    for number, value in enumerate(read_jsonl(path, remedy=REMEDY, size=size), start=1):
        try:
            line = adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            problem = "is missing" if first["type"] == "missing" else f"is wrong: {first['msg']}"
            raise DataError(
                f"{path}: line {number}: `{field}` {problem}; the line was edited, or written by "
                f"another version; {REMEDY}"
            ) from None
        if line.step != number:
            raise DataError(
                f"{path}: line {number} is step {line.step}: a line was edited, lost or doubled; "
                f"{REMEDY}"
            )
        found.append(line)
    return found


def chain_next(previous: str, record: StepRecord) -> str:
    """The chain hash of a metrics line, given that of the line before (hex)."""
    values = {name: getattr(record, name) for name in LINKED[record.schema]}
    if record.part_lrs is not None:
        values["part_lrs"] = record.part_lrs
    linked = canonical_json(values)
    return hashlib.sha256(previous.encode() + b"\n" + linked).hexdigest()


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
        self, metrics: StepMetrics, samples: Sequence[str], images: Sequence[str | None]
    ) -> StepRecord:
        """Write one step; returns its line of metrics.jsonl."""
        unlinked = StepRecord(
            **asdict(metrics),
            ids=step_digest(samples),
            images=images_digest(images),
            chain="",
            schema=SCHEMA,
        )
        record = replace(unlinked, chain=chain_next(self.chain, unlinked))
        self.chain = record.chain
        self.steps += 1
        fed = StepFeed(step=record.step, samples=list(samples), images=list(images))
        # The feed first: a metrics line always has its evidence.
        line = {key: value for key, value in asdict(record).items() if (key, value) not in ABSENT}
        for file, values in ((self._feed, asdict(fed)), (self._metrics, line)):
            file.write(json.dumps(values).encode() + b"\n")
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
            f"{path} is shorter than its checkpoint says ({length} of {size} bytes): it was cut "
            f"off or replaced; {REMEDY}"
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
