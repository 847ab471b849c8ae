"""How much training a save costs: written while training stands, as before, and in the background.

A model of Linear layers is trained with AdamW on one thread, in rounds of the same number of steps:
without a save, with one in the foreground (copied, written by safetensors, forced to disk, read
again for its hash, renamed), and with one of densekit's own (`train/saves.py`). Rounds alternate,
so that a busy host slows all three. What a save costs is how long training stood still for it, and
the CPU time that the steps of its round took more than those of the round without.

    python benchmarks/save.py --megabytes 400 --steps 20 --rounds 5 --folder /where/runs/are
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim import AdamW

from densekit.files import durable
from densekit.files.hashing import file_sha256
from densekit.runs.checkpoint import read_checkpoint
from densekit.runs.records import Position
from densekit.runs.results import Summary
from densekit.spec.execution import Execution
from densekit.train.engines.base import Engine
from densekit.train.saves import Cursor, Saves
from densekit.train.shards import ADAMW_STATES, Shard

BYTES_PER_WEIGHT = 12
"""Weight, exp_avg and exp_avg_sq in fp32."""
WIDTH = 1024
BATCH = 64


class Model:
    """One rank without a process group, as Saves sees an engine."""

    rank, world_size, replicated = 0, 1, True
    execution = Execution()

    def __init__(self, megabytes: float) -> None:
        layers = max(1, round(megabytes * 1e6 / BYTES_PER_WEIGHT / WIDTH**2))
        self.net = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)))
        self.optimizer = AdamW(self.net.parameters(), lr=1e-4)
        self.shapes = {name: tuple(p.shape) for name, p in self.net.named_parameters()}
        self.step()

    def step(self) -> None:
        """One optimizer step."""
        self.net(torch.ones(BATCH, WIDTH)).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def shards(self) -> Iterator[Shard]:
        """Every parameter, whole."""
        for name, parameter in self.net.named_parameters():
            states = {key: self.optimizer.state[parameter][key].view(-1) for key in ADAMW_STATES}
            weight = parameter.detach().view(-1)
            yield Shard(name=name, numel=weight.numel(), start=0, weight=weight, **states)

    def scaler_state(self) -> None:
        """fp32 has none."""


@dataclass(kw_only=True)
class Times:
    """Seconds in each round of one kind."""

    stands: list[float] = field(default_factory=list)
    """Training stood still for the save."""
    steps: list[float] = field(default_factory=list)
    """CPU time of the thread that trains."""


def main() -> None:
    """Measure, and print the seconds per save and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=400, help="of one checkpoint")
    parser.add_argument("--steps", type=int, default=20, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to save (default: a temporary folder)")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        result = measure(Path(folder), asked.megabytes, asked.steps, asked.rounds)
    print(json.dumps(result, indent=1) if asked.json else "\n".join(lines(result)))


def measure(folder: Path, megabytes: float, steps: int, rounds: int) -> dict[str, Any]:
    """Figures of rounds that alternate, the first of each kind left out."""
    model = Model(megabytes)
    saves = Saves(
        cast(Engine, model), folder / "background", run_sha256="0" * 64, keep=1, keep_hours=0
    )
    kinds = {"none": Times(), "foreground": Times(), "background": Times()}
    for number in range(1, rounds + 2):
        for kind, times in kinds.items():
            stood = trained = 0.0
            if kind == "foreground":
                stood += timed(lambda: foreground(model, folder / "foreground"))
            elif kind == "background":
                cursor = cursor_at(number)
                stood += timed(lambda cursor=cursor: saves.begin(cursor))
            for _ in range(steps):
                stood += timed(lambda: saves.settle(saves.flags))
                trained += timed(model.step, time.thread_time)
            if kind == "background":
                stood += timed(saves.finish)
            if number > 1:  # memory and disk are warm
                times.stands.append(stood)
                times.steps.append(trained)
    (saved,) = (folder / "background").glob("step-*")
    ours = read_checkpoint(saved).files["rank-0000.safetensors"]
    return {
        "megabytes": round(ours.bytes / 1e6, 1),
        "steps": steps,
        "rounds": rounds,
        "stands": {kind: statistics.median(times.stands) for kind, times in kinds.items()},
        "steps_cpu": {kind: statistics.median(times.steps) for kind, times in kinds.items()},
        "lost": {
            kind: statistics.median(
                stood + took - without
                for stood, took, without in zip(
                    kinds[kind].stands, kinds[kind].steps, kinds["none"].steps, strict=True
                )
            )
            for kind in ("foreground", "background")
        },
    }


def foreground(model: Model, folder: Path) -> None:
    """A save while training stands: what densekit did before."""
    temporary = folder.with_name(".saving")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.mkdir()
    tensors = {
        f"{part}:{shard.name}": value.detach().cpu().clone()
        for shard in model.shards()
        for part, value in shard.tensors().items()
    }
    path = temporary / "rank-0000.safetensors"
    save_file(tensors, path)
    durable.fsync(path)
    (temporary / "hash").write_text(file_sha256(path), encoding="utf-8")
    durable.fsync(temporary)
    durable.rename(temporary, folder)


def timed(action: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> float:
    """Seconds that a call takes."""
    begun = clock()
    action()
    return clock() - begun


def cursor_at(step: int) -> Cursor:
    """Some place of a run."""
    return Cursor(
        step=step,
        optimizer_steps=step,
        overflows_in_a_row=0,
        summary=Summary(steps=step),
        records=Position(steps=step, metrics_bytes=10**6, feed_bytes=10**6),
    )


def lines(result: dict[str, Any]) -> list[str]:
    """The figures for people."""
    lost, stands = result["lost"], result["stands"]
    return [
        f"checkpoint of {result['megabytes']:.0f} MB, {result['rounds']} rounds of "
        f"{result['steps']} steps, {result['steps_cpu']['none']:.2f} s of CPU time without a save",
        f"training stands still: {stands['foreground']:.2f} s in the foreground, "
        f"{stands['background']:.2f} s in the background; ratio "
        f"{stands['background'] / stands['foreground']:.2f}",
        f"training lost per save: {lost['foreground']:.2f} s in the foreground, "
        f"{lost['background']:.2f} s in the background; ratio "
        f"{lost['background'] / lost['foreground']:.2f}",
    ]


if __name__ == "__main__":
    main()
