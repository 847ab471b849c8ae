"""Saving while training goes on: a checkpoint is copied, written, and made visible.

1. `begin` copies this rank's shards into host RAM between two optimizer steps. Training waits for
   that alone.
2. A thread writes the copy, hashed on the way, and forces it to disk.
3. When no rank writes any more, which the flags of a step say (`train/feed_check.py`), ranks
   exchange their hashes, and a thread of rank 0 writes checkpoint.json, makes the checkpoint
   visible by one rename and removes older ones.

At most one save is on its way. What each failure does is in docs/run-directory.md.

Under CPU offload the states are in host RAM themselves, and a copy would take as much again as they
do: they are written as they are, and training waits (`planner/host_ram.py` counts the same).
"""

import copy
import errno
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densekit.errors import DataError, DensekitError
from densekit.files import durable
from densekit.files.json_files import json_bytes
from densekit.model.tensor_files import write_tensors
from densekit.ranks.collectives import gather_objects
from densekit.runs.checkpoint import STATE_FILE, CheckpointState, step_of
from densekit.runs.layout import checkpoint_name, checkpoints_in
from densekit.runs.records import Position
from densekit.runs.results import Summary
from densekit.spec.saved_file import SavedFile
from densekit.train.background import Worker
from densekit.train.checkpoints import owned, prune
from densekit.train.engines.base import Engine
from densekit.train.feed_check import SAVE_FAILED, SAVING

SAID_FROM_S = 1.0
"""A wait for the save before is said from here on; the first one always."""
CLOSE_S = 10.0
"""How long an attempt that failed waits for its thread: the disk may hang."""


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """Where training is when a save begins: what checkpoint.json holds beside its files."""

    step: int
    optimizer_steps: int
    overflows_in_a_row: int
    summary: Summary
    records: Position


class Saves:
    """The saves of one attempt; every rank calls every method but `flags` and `close` at the same
    step.
    """

    def __init__(
        self, engine: Engine, folder: Path, *, run_sha256: str, keep: int, keep_hours: float
    ) -> None:
        self.engine, self.folder, self.run_sha256 = engine, folder, run_sha256
        self.keep, self.keep_hours = keep, keep_hours
        self._copies = not engine.execution.cpu_offload
        self._host_copy: dict[str, Tensor] = {}
        self._save: _Save | None = None
        self._said = False

    @property
    def flags(self) -> int:
        """SAVING while this rank writes, SAVE_FAILED once it could not."""
        if self._save is None or self._save.worker is None:
            return 0
        if self._save.worker.is_alive():
            return SAVING
        return SAVE_FAILED if self._save.worker.error else 0

    def begin(self, cursor: Cursor) -> None:
        """Copy the state that `cursor` describes and start writing it.

        Waits for a save that is still on its way, and says so. A checkpoint of that step which is
        there already (the one this attempt resumed from) is left as it is. Raises DataError on
        every rank when any of them has no room for the file or the copy, or could not write the
        save before.
        """
        self._wait_for_the_one_before(cursor.step)
        final = self.folder / checkpoint_name(cursor.step)
        if gather_objects(final.exists())[0]:
            return
        save = _Save(
            cursor=replace(cursor, summary=copy.deepcopy(cursor.summary)),
            scaler=self.engine.scaler_state(),
            temporary=self.folder / f".{final.name}.saving",
        )
        self._agree(save, _attempt(lambda: self._prepare(save), when=self.engine.rank == 0))
        self._agree(save, _attempt(lambda: self._copy(save)))
        self._save = save
        save.start(lambda: self._write(save))
        if not self._copies:
            self.finish()
            self._host_copy = {}

    def settle(self, flags: int) -> None:
        """Go on with a save that no rank writes any more, by the `flags` of all ranks at this step.

        Raises DataError on every rank when one of them could not write.
        """
        if self._save is not None and (not flags & SAVING or flags & SAVE_FAILED):
            if flags & SAVE_FAILED:
                self._save.cancelled.set()
            self._advance(self._save)

    def finish(self) -> None:
        """Wait until the save on its way is visible. Raises as `settle`."""
        while self._save is not None:
            self._advance(self._save)

    def close(self) -> None:
        """End this rank's thread; a save on its way comes to nothing."""
        if self._save is not None and self._save.worker is not None:
            self._save.cancelled.set()
            self._save.worker.join(CLOSE_S)

    def _wait_for_the_one_before(self, step: int) -> None:
        if self._save is None:
            return
        before, begun = self._save.cursor.step, time.monotonic()
        self.finish()
        waited = time.monotonic() - begun
        if self.engine.rank == 0 and (waited >= SAID_FROM_S or not self._said):
            self._said = True
            print(
                f"the checkpoint of step {before} was still being written when that of step {step} "
                f"was due: training waited {waited:.1f} s; save less often (--save-minutes, "
                "--save-steps), or to a faster disk",
                file=sys.stderr,
                flush=True,
            )

    def _advance(self, save: "_Save") -> None:
        """Wait for the threads of all ranks, then publish what they wrote, or note that it is."""
        outcomes = self._agree(save, save.outcome())
        if save.files:  # that was the thread which published
            self._save = None
            return
        save.files = dict(outcomes)
        save.worker = None
        if self.engine.rank == 0:
            save.start(lambda: self._publish(save))

    def _agree(self, save: "_Save", outcome: "_Outcome") -> list[Any]:
        """The results of all ranks. Raises DataError on each of them for the first that failed."""
        outcomes = gather_objects(outcome)
        failed = [each for each in outcomes if each.problem is not None]
        if not failed:
            return [each.result for each in outcomes]
        self._save = None
        if self.engine.rank == 0:
            shutil.rmtree(save.temporary, ignore_errors=True)
        first = min(failed, key=lambda each: each.cancelled)
        if first.whole:
            raise DataError(first.problem)
        kept = checkpoints_in(self.folder)
        since = (
            f"the run can be resumed from step {step_of(kept[-1])}"
            if kept
            else "there is no earlier checkpoint"
        )
        raise DataError(
            f"the checkpoint of step {save.cursor.step} cannot be written to {self.folder}: "
            f"{first.problem}; {since}: {first.remedy}, then start the run again"
        )

    def _prepare(self, save: "_Save") -> None:
        for leftover in self.folder.glob(".step-*"):
            shutil.rmtree(leftover)
        save.temporary.mkdir(parents=True)

    @torch.no_grad()
    def _copy(self, save: "_Save") -> None:
        """Fill the host copy: made at the first save, used again by the others. Without one, what
        is written is the states themselves.
        """
        shards = list(owned(self.engine))
        live = {
            f"{part}:{shard.name}": value
            for shard in shards
            for part, value in shard.tensors().items()
        }
        self._check_room(sum(value.numel() * value.element_size() for value in live.values()))
        save.places.update({shard.name: [shard.start, len(shard)] for shard in shards})
        if not self._copies:
            self._host_copy = {name: value.detach().cpu() for name, value in live.items()}
            return
        for name, value in live.items():
            if name not in self._host_copy:
                self._host_copy[name] = torch.empty_like(value, device="cpu")
            self._host_copy[name].copy_(value)

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            needed_gib, free_gib = needed / 2**30, free / 2**30
            raise OSError(
                errno.ENOSPC,
                f"No space left on device ({needed_gib:.1f} GiB needed, {free_gib:.1f} GiB free)",
            )

    def _write(self, save: "_Save") -> tuple[str, SavedFile]:
        """In a thread: this rank's file, on disk."""
        path = save.temporary / f"rank-{self.engine.rank:04d}.safetensors"
        written = write_tensors(
            self._host_copy,
            path,
            metadata={"fragments": json.dumps(save.places)},
            proceed=save.check_cancelled,
        )
        durable.wrote(path)
        durable.fsync(path)
        return path.name, SavedFile(sha256=written.sha256, bytes=written.bytes)

    def _publish(self, save: "_Save") -> None:
        """In a thread of rank 0: checkpoint.json, the rename, and older checkpoints go."""
        cursor, execution = save.cursor, self.engine.execution
        state = CheckpointState(
            run=self.run_sha256,
            step=cursor.step,
            optimizer_steps=cursor.optimizer_steps,
            overflows_in_a_row=cursor.overflows_in_a_row,
            summary=cursor.summary,
            records=cursor.records,
            scaler=save.scaler,
            parameters={name: list(shape) for name, shape in self.engine.shapes.items()},
            world_size=self.engine.world_size,
            zero_stage=execution.zero_stage,
            dtype=execution.dtype,
            files=save.files,
        )
        path = save.temporary / STATE_FILE
        durable.write_bytes(path, json_bytes(state.as_json()))
        durable.fsync(path)
        durable.fsync(save.temporary)
        durable.rename(save.temporary, self.folder / checkpoint_name(cursor.step))
        try:
            prune(self.folder, keep=self.keep, keep_hours=self.keep_hours)
        except OSError as error:
            raise DataError(
                f"older checkpoints in {self.folder} cannot be removed: "
                f"{error.strerror or error}; remove them, then start the run again"
            ) from None


class _Cancelled(Exception):
    """Another rank could not write, or the attempt ends."""


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What became of one rank's part; travels between ranks."""

    result: Any = None
    problem: str | None = None
    remedy: str = "free disk space"
    whole: bool = False
    """Whether `problem` says all there is to say."""
    cancelled: bool = False

    @classmethod
    def of(cls, error: BaseException) -> "_Outcome":
        """The outcome of a part that failed."""
        if isinstance(error, _Cancelled):
            return cls(problem="another rank could not write its part", cancelled=True)
        if isinstance(error, DensekitError):
            return cls(problem=str(error), whole=True)
        if isinstance(error, OSError):
            return cls(problem=error.strerror or str(error))
        if isinstance(error, MemoryError) or "allocate" in str(error):
            return cls(
                problem="there is no host RAM for a copy of the weights and AdamW states",
                remedy="ask for more memory (host_ram_gib of the plan), or train on more nodes",
            )
        return cls(problem=f"{type(error).__name__}: {error}", remedy="mend that")


class _Save:
    """One save on its way."""

    def __init__(self, *, cursor: Cursor, scaler: dict[str, Any] | None, temporary: Path) -> None:
        self.cursor, self.scaler, self.temporary = cursor, scaler, temporary
        self.places: dict[str, list[int]] = {}
        """Parameter -> start and length of this rank's shard of it."""
        self.files: dict[str, SavedFile] = {}
        """Known once all ranks have written."""
        self.worker: Worker | None = None
        self.cancelled = threading.Event()

    def start(self, action: Callable[[], Any]) -> None:
        """Begin a part in a thread."""
        self.worker = Worker(action, name="save")
        self.worker.start()

    def outcome(self) -> _Outcome:
        """What became of this rank's part; waits for it."""
        if self.worker is None:
            return _Outcome()
        self.worker.join()
        if self.worker.error is not None:
            return _Outcome.of(self.worker.error)
        return _Outcome(result=self.worker.result)

    def check_cancelled(self) -> None:
        """Raises _Cancelled when nobody waits for this save any more."""
        if self.cancelled.is_set():
            raise _Cancelled


def _attempt(action: Callable[[], Any], *, when: bool = True) -> _Outcome:
    """The outcome of a part that training waits for."""
    try:
        return _Outcome(result=action() if when else None)
    except Exception as error:  # gathered: a rank that raised alone would leave the others waiting
        return _Outcome.of(error)
