"""Checkpoints in the project's own format: safetensors shards per rank and one JSON, readable at
any world size.

    checkpoints/step-00000040/
        rank-0000.safetensors   weight:<name>, exp_avg:<name>, exp_avg_sq:<name>, fp32, 1-D; its
                                metadata says where in the flattened parameter each shard starts
        checkpoint.json         step, schedule, loss scale, totals, records position, hash of every
                                file, sealed with its own (runs/checkpoint.py)

A save is written beside its place and becomes visible by one rename. No random state is stored:
every draw has a named seed that follows from the recipe's seed and the step.
"""

import errno
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from densekit.errors import DataError
from densekit.files import durable
from densekit.files.hashing import file_sha256
from densekit.files.json_files import json_bytes
from densekit.files.permissions import follow_umask
from densekit.runs.checkpoint import STATE_FILE, CheckpointState, file_damage, step_of
from densekit.runs.layout import checkpoint_name, checkpoints_in
from densekit.runs.records import Position
from densekit.runs.results import Summary
from densekit.spec.saved_file import SavedFile
from densekit.train.collectives import gather_objects
from densekit.train.engines.base import Engine
from densekit.train.shards import Shard


def save_checkpoint(
    engine: Engine,
    folder: Path,
    *,
    step: int,
    optimizer_steps: int,
    overflows_in_a_row: int,
    summary: Summary,
    records: Position,
    run_sha256: str,
) -> Path:
    """Write the checkpoint of the state after `step` steps; every rank calls this. Returns its
    folder.

    A checkpoint of that step which is there already (the one this attempt resumed from) is left as
    it is.

    Raises DataError on every rank when any of them cannot write (a full disk): nothing half-written
    stays, earlier checkpoints are untouched.
    """
    final = folder / checkpoint_name(step)
    if gather_objects(final.exists())[0]:
        return final
    temporary = folder / f".{final.name}.saving"
    mine = temporary / f"rank-{engine.rank:04d}.safetensors"

    def prepare() -> None:
        for leftover in folder.glob(".step-*"):
            shutil.rmtree(leftover)
        temporary.mkdir(parents=True)

    def write() -> tuple[str, SavedFile]:
        shards = list(owned(engine))
        _check_room(folder, shards)
        tensors = {
            f"{part}:{shard.name}": value.detach().cpu().clone()
            for shard in shards
            for part, value in shard.tensors().items()
        }
        places = {shard.name: [shard.start, len(shard)] for shard in shards}
        save_file(tensors, mine, metadata={"fragments": json.dumps(places)})
        follow_umask(mine)
        durable.wrote(mine)
        durable.fsync(mine)
        return mine.name, SavedFile(sha256=file_sha256(mine), bytes=mine.stat().st_size)

    def make_visible() -> None:
        state = CheckpointState(
            run=run_sha256,
            step=step,
            optimizer_steps=optimizer_steps,
            overflows_in_a_row=overflows_in_a_row,
            summary=summary,
            records=records,
            scaler=engine.scaler_state(),
            parameters={name: list(shape) for name, shape in engine.shapes.items()},
            world_size=engine.world_size,
            zero_stage=engine.execution.zero_stage,
            dtype=engine.execution.dtype,
            files=dict(files),
        )
        path = temporary / STATE_FILE
        durable.write_bytes(path, json_bytes(state.as_json()))
        durable.fsync(path)
        durable.fsync(temporary)
        durable.rename(temporary, final)

    try:
        _together(engine, prepare, main_only=True)
        files = [entry for entry in _together(engine, write) if entry]
        _together(engine, make_visible, main_only=True)
    except OSError as error:
        if engine.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        kept = checkpoints_in(folder)
        since = (
            f"the run can be resumed from step {step_of(kept[-1])}"
            if kept
            else "there is no earlier checkpoint"
        )
        raise DataError(
            f"the checkpoint of step {step} cannot be written to {folder}: "
            f"{error.strerror or error}; {since}: free disk space, then start the run again"
        ) from None
    return final


def damaged_files(engine: Engine, path: Path, state: CheckpointState) -> list[str]:
    """What is wrong with the files of a checkpoint, in words, on every rank; each rank reads its
    share of them.
    """
    names = sorted(state.files)[engine.rank :: engine.world_size]
    mine = [file_damage(path / name, state.files[name]) for name in names]
    return [damage for part in gather_objects(mine) for damage in part if damage]


def load_checkpoint(engine: Engine, path: Path, state: CheckpointState) -> None:
    """Fill a fresh engine from a checkpoint of any world size and ZeRO stage; every rank calls
    this. Raises DataError when its files do not hold what this engine trains.
    """
    expected = {name: list(shape) for name, shape in engine.shapes.items()}
    found = state.parameters
    if found != expected:
        odd = sorted(name for name in found | expected if found.get(name) != expected.get(name))
        raise DataError(
            f"{path} holds other parameters than this model trains: {', '.join(odd[:3])}"
        )
    sources = _sources([path / name for name in sorted(state.files)])
    with torch.no_grad():
        for shard in engine.shards():
            _fill(shard, sources.get(shard.name, []), path)
    engine.optimizer_steps = state.optimizer_steps
    engine.sync_params_from_masters()
    if state.scaler is not None and engine.scaler_state() is not None:
        engine.load_scaler_state(state.scaler)


def fill_masters(engine: Engine, weights: dict[str, Tensor]) -> None:
    """Put whole fp32 weights into an engine that keeps its model in half precision: nothing is
    rounded twice.
    """
    with torch.no_grad():
        for shard in engine.shards():
            if shard.name in weights:
                flat = weights[shard.name].reshape(-1)
                shard.weight.copy_(flat[shard.start : shard.start + len(shard)])
    engine.sync_params_from_masters()


def owned(engine: Engine) -> Iterator[Shard]:
    """What this rank writes: its shards, or its part of each where every rank holds all of them."""
    for shard in engine.shards():
        if not engine.replicated:
            yield shard
            continue
        share = -(-len(shard) // engine.world_size)
        start = engine.rank * share
        if start < len(shard):
            yield shard.narrow(start, min(share, len(shard) - start))


def prune(folder: Path, *, keep: int, keep_hours: float) -> list[Path]:
    """Delete checkpoints beyond the newest `keep` that are older than `keep_hours`; returns what
    went.
    """
    limit = time.time() - keep_hours * 3600
    old = [path for path in checkpoints_in(folder)[:-keep] if path.stat().st_mtime <= limit]
    for path in old:
        # Out of sight first: a kill inside rmtree must not leave half a checkpoint under its name.
        hidden = path.with_name(f".{path.name}.deleted")
        durable.rename(path, hidden)
        shutil.rmtree(hidden)
    return old


def _together(engine: Engine, action: Callable[[], Any], *, main_only: bool = False) -> list[Any]:
    """Run `action` on every rank (or rank 0), wait for all, and raise the first OSError of any rank
    on each of them.
    """
    result: Any = None
    problem: OSError | None = None
    if not main_only or engine.rank == 0:
        try:
            result = action()
        except SafetensorError as error:  # how safetensors reports a failed write
            problem = OSError(str(error))
        except OSError as error:
            problem = error
    outcomes = gather_objects(
        (result, problem and (problem.errno, problem.strerror or str(problem)))
    )
    for _, failed in outcomes:
        if failed:
            raise OSError(*failed) if failed[0] else OSError(failed[1])
    return [outcome for outcome, _ in outcomes]


def _check_room(folder: Path, shards: list[Shard]) -> None:
    needed = sum(
        tensor.numel() * tensor.element_size()
        for shard in shards
        for tensor in shard.tensors().values()
    )
    free = shutil.disk_usage(folder).free
    if free < needed:
        needed_gib, free_gib = needed / 2**30, free / 2**30
        raise OSError(
            errno.ENOSPC,
            f"No space left on device ({needed_gib:.1f} GiB needed, {free_gib:.1f} GiB free)",
        )


def _sources(files: list[Path]) -> dict[str, list[tuple[int, int, Path]]]:
    """Per parameter: start, length and file of every saved shard."""
    found: dict[str, list[tuple[int, int, Path]]] = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            for name, (start, length) in json.loads(opened.metadata()["fragments"]).items():
                found.setdefault(name, []).append((start, length, file))
    return found


def _fill(shard: Shard, sources: list[tuple[int, int, Path]], path: Path) -> None:
    """Copy the saved elements that overlap a shard into it; only those slices are read."""
    copied = 0
    for start, length, file in sources:
        first = max(start, shard.start)
        last = min(start + length, shard.start + len(shard))
        if first >= last:
            continue
        with safe_open(file, "pt") as opened:
            for part, target in shard.tensors().items():
                values = opened.get_slice(f"{part}:{shard.name}")[first - start : last - start]
                target.narrow(0, first - shard.start, last - first).copy_(values)
        copied += last - first
    if copied != len(shard):
        raise DataError(
            f"{path} holds {copied} of {len(shard)} elements of {shard.name} that this rank needs"
        )
