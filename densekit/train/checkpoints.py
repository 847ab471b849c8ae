"""Checkpoints in the project's own format: safetensors shards per rank and one JSON, readable at
any world size.

    checkpoints/step-00000040/
        rank-0000.safetensors   weight:<name>, exp_avg:<name>, exp_avg_sq:<name>, fp32, 1-D; its
                                metadata says where in the flattened parameter each shard starts
        checkpoint.json         step, schedule, loss scale, totals, records position, hash of every
                                file

A save is written beside its place and becomes visible by one rename. No random state is stored:
every draw has a named seed that follows from the recipe's seed and the step.
"""

import errno
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from densekit.errors import DataError
from densekit.files import durable
from densekit.files.hashing import file_sha256
from densekit.files.json_files import json_bytes, read_object
from densekit.files.permissions import follow_umask
from densekit.runs.layout import checkpoint_name, checkpoints_in
from densekit.runs.records import Position
from densekit.train.collectives import gather_objects
from densekit.train.engines.base import Engine
from densekit.train.shards import Shard

SCHEMA = 1
STATE_FILE = "checkpoint.json"


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything beside weights and AdamW states that the next step depends on."""

    step: int
    """Steps fed so far: the data cursor."""
    optimizer_steps: int
    """Steps that changed weights: the position in the schedule, and AdamW's own count."""
    overflows_in_a_row: int
    summary: dict[str, Any]
    records: Position


def save_checkpoint(engine: Engine, folder: Path, state: TrainingState, *, run_sha256: str) -> Path:
    """Write one checkpoint; every rank calls this. Returns its folder.

    A checkpoint of that step which is there already (the one this attempt resumed from) is left as
    it is.

    Raises DataError on every rank when any of them cannot write (a full disk): nothing half-written
    stays, earlier checkpoints are untouched.
    """
    final = folder / checkpoint_name(state.step)
    if gather_objects(final.exists())[0]:
        return final
    temporary = folder / f".{final.name}.saving"
    mine = temporary / f"rank-{engine.rank:04d}.safetensors"

    def prepare() -> None:
        for leftover in folder.glob(".step-*"):
            shutil.rmtree(leftover)
        temporary.mkdir(parents=True)

    def write() -> tuple[str, dict[str, Any]]:
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
        return mine.name, {"sha256": file_sha256(mine), "bytes": mine.stat().st_size}

    def make_visible() -> None:
        value = {
            "schema": SCHEMA,
            "run": run_sha256,
            **_state_json(state),
            "scaler": engine.scaler_state(),
            "parameters": {name: list(shape) for name, shape in engine.shapes.items()},
            "world_size": engine.world_size,
            "zero_stage": engine.execution.zero_stage,
            "dtype": engine.execution.dtype,
            "files": dict(files),
        }
        path = temporary / STATE_FILE
        durable.write_bytes(path, json_bytes(value))
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
            f"the run can be resumed from step {_step_of(kept[-1])}"
            if kept
            else "there is no earlier checkpoint"
        )
        raise DataError(
            f"the checkpoint of step {state.step} cannot be written to {folder}: "
            f"{error.strerror or error}; {since}: free disk space, then start the run again"
        ) from None
    return final


def _state_json(state: TrainingState) -> dict[str, Any]:
    """Its fields under the keys of schema 1."""
    values = asdict(state)
    values["updates"] = values.pop("optimizer_steps")
    return values


def load_checkpoint(engine: Engine, path: Path, *, run_sha256: str) -> TrainingState:
    """Fill a fresh engine from a checkpoint of any world size and ZeRO stage; every rank calls
    this.

    Every file is compared with its recorded hash first. Raises DataError naming what is missing,
    damaged, or of another run.
    """
    saved = read_state(path, run_sha256=run_sha256)
    names = sorted(saved["files"])
    try:
        mine = [
            _damage(path / name, saved["files"][name])
            for name in names[engine.rank :: engine.world_size]
        ]
    except OSError as error:
        mine = [f"{path}: {error.strerror}"]
    damaged = [damage for part in gather_objects(mine) for damage in part if damage]
    if damaged:
        raise DataError(f"{damaged[0]}; move {path} away to resume from the checkpoint before it")
    expected = {name: list(shape) for name, shape in engine.shapes.items()}
    found = saved["parameters"]
    if found != expected:
        odd = sorted(name for name in found | expected if found.get(name) != expected.get(name))
        raise DataError(
            f"{path} holds other parameters than this model trains: {', '.join(odd[:3])}"
        )
    sources = _sources([path / name for name in names])
    with torch.no_grad():
        for shard in engine.shards():
            _fill(shard, sources.get(shard.name, []), path)
    engine.optimizer_steps = saved["updates"]
    engine.sync_params_from_masters()
    if saved["scaler"] is not None and engine.scaler_state() is not None:
        engine.load_scaler_state(saved["scaler"])
    return TrainingState(
        step=saved["step"],
        optimizer_steps=saved["updates"],
        overflows_in_a_row=saved["overflows_in_a_row"],
        summary=saved["summary"],
        records=Position(**saved["records"]),
    )


def read_state(path: Path, *, run_sha256: str) -> dict[str, Any]:
    """checkpoint.json of `path`; DataError when it is unreadable, of another version or of another
    run.
    """
    value = read_object(path / STATE_FILE)
    if value.get("schema") != SCHEMA:
        raise DataError(
            f"{path / STATE_FILE} is not a checkpoint of this version (schema {SCHEMA})"
        )
    if value["run"] != run_sha256:
        raise DataError(
            f"{path} belongs to another run ({value['run'][:10]}, this is {run_sha256[:10]}); "
            "remove it"
        )
    return value


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


def _damage(path: Path, entry: dict[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path} is missing"
    size = path.stat().st_size
    if size != entry["bytes"]:
        return f"{path} is damaged: {size} bytes, {entry['bytes']} were written"
    if file_sha256(path) != entry["sha256"]:
        return f"{path} is damaged: its SHA-256 is not the one recorded when it was written"
    return None


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


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))
