"""Checkpoints in the project's own format: safetensors shards per rank and one JSON, readable at
any world size.

    checkpoints/step-00000040/
        rank-0000.safetensors   weight:<name>, exp_avg:<name>, exp_avg_sq:<name>, fp32, 1-D; its
                                metadata says where in the flattened parameter each shard starts
        checkpoint.json         step, schedule, loss scale, totals, records position, hash of every
                                file, sealed with its own (runs/checkpoint.py)

A save (train/saves.py) is written beside its place and becomes visible by one rename. No random
state is stored: every draw has a named seed that follows from the recipe's seed and the step.
"""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from densekit.errors import DataError
from densekit.files import durable
from densekit.ranks.collectives import gather_objects
from densekit.runs.checkpoint import CheckpointState, file_damage
from densekit.runs.layout import checkpoints_in
from densekit.train.engines.base import Engine
from densekit.train.shards import Shard


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
