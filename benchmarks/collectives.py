"""Collectives of one optimizer step, by engine, in worlds of 2 to 128 ranks, without other ranks.

Rank 0 of torch's fake process group (its collectives return at once and hand nothing on) trains a
tiny recipe with random weights, through the trainer's own loop and the real engines. What c10d is
asked for from one step's beginning to the next one's is counted: calls and bytes, the feed's gather
and the loss's sum included. Each case is a process of its own, forked from one that has imported
everything.

Nothing may grow with the ranks; with the micro-batches only what ZeRO does in every backward pass
(and ZeRO-3 in every forward pass). A line per engine says so, or names what grows, and the exit
code is then 1. `--json` prints calls, bytes and CPU milliseconds of each case.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from gpu.made import make_trainer, workload_of
from torch import Tensor, distributed
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from densekit.spec.execution import Execution
from densekit.spec.types import ZeroStage
from densekit.train.engines import process_group
from densekit.train.feed_check import Feed
from densekit.train.step_dataset import StepBatch
from densekit.train.trainer import RunningStep, Trainer

ENGINES: dict[str, ZeroStage] = {"ddp": 0, "zero2": 2, "zero3": 3}
WORLDS = (2, 8, 32, 128)
MICRO_BATCHES = (1, 2, 4)
SAMPLES = 2
"""Of a micro-batch."""
PERSISTENT_ELEMENTS = 1000
"""ZeRO-3 keeps smaller parameters whole. As in a model of real size, that are the norms only."""
TIMED = 4
"""Steps, behind those that are counted."""
WARM_UP = 2
"""Steps in which DeepSpeed records the order of modules, and gathers more."""


class Counting(TorchDispatchMode):
    """Calls of c10d by name, and the bytes that each hands over or fills, whichever is more."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace == "c10d":
            name = func._schema.name.removeprefix("c10d::").strip("_")
            self.calls[name] += 1
            self.bytes[name] += max(map(_bytes, args))
        return func(*args, **(kwargs or {}))


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


@dataclass(kw_only=True)
class Counted:
    """One case."""

    calls: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    step_ms: float = 0.0
    """CPU milliseconds of forward, backward and update, the least of some steps in which nobody
    counted.
    """


def count(
    engine: str,
    world: int,
    micro_batches: int,
    what: str = "full",
    *,
    fake: bool = True,
    timed: int = 0,
) -> Counted:
    """The collectives of one step of this process, which no process group was started in.

    `fake` False: on ranks that were really started. `timed`: steps whose time is taken afterwards.
    Raises RuntimeError where two steps differ.
    """
    torch.set_num_threads(1)
    if fake:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(world)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "LOCAL_WORLD_SIZE": str(world)}
        os.environ.setdefault("MASTER_PORT", "29500")  # nobody connects to it
        distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
    process_group.PERSISTENT_ELEMENTS = PERSISTENT_ELEMENTS
    execution = Execution(world_size=world, zero_stage=ENGINES[engine], micro_batch_size=SAMPLES)
    math, workload = workload_of("tiny", what)
    accelerator = process_group.make_accelerator(execution, max_grad_norm=1.0)
    trainer = make_trainer(
        math,
        workload,
        execution,
        accelerator,
        steps=WARM_UP + 3,
        samples=world * SAMPLES * micro_batches,
        on="cpu",
    )
    if fake:
        _go_on_without_others(trainer)
    marks: list[tuple[Counter[str], Counter[str]]] = []
    begin = trainer.begin
    with Counting() as counting:

        def counted(batch: StepBatch) -> RunningStep:
            assert len(batch.micro_batches) == micro_batches
            marks.append((Counter(counting.calls), Counter(counting.bytes)))
            return begin(batch)

        trainer.begin = counted  # type: ignore[method-assign]
        trainer.train(label=engine, quiet=True)
    steps = [(after[0] - before[0], after[1] - before[1]) for before, after in _pairs(marks)]
    calls, sizes = steps[-1]
    if steps[-2] != steps[-1]:
        raise RuntimeError(f"{engine}: steps {steps[-2][0]} and {calls} differ")
    milliseconds = 0.0
    if timed:
        batch = next(trainer.batches())
        milliseconds = min(_timed(begin, batch) for _ in range(timed))
    return Counted(calls=dict(calls), bytes=dict(sizes), step_ms=milliseconds)


def _timed(begin: Callable[[StepBatch], RunningStep], batch: StepBatch) -> float:
    begun = time.process_time()
    begin(batch)
    return round(1000 * (time.process_time() - begun), 1)


def _pairs(marks: list[Any]) -> list[tuple[Any, Any]]:
    return list(itertools.pairwise(marks))[WARM_UP:]


def _go_on_without_others(trainer: Trainer) -> None:
    """Where the fake group hands nothing on: count the collective, and go on without its result."""
    check_feed = trainer.check_feed

    def only_gathered(batch: StepBatch, flags: int = 0) -> Feed:
        try:
            return check_feed(batch, flags)
        except RuntimeError:  # the other ranks' samples are not there
            return Feed(samples=[], images=[], flags=0)

    trainer.check_feed = only_gathered  # type: ignore[method-assign]
    trainer._check_finite = lambda loss, batch: None  # type: ignore[method-assign]
    if isinstance(trainer.engine.module, torch.nn.parallel.DistributedDataParallel):
        # DDP asks the same of each bucket by itself, and stops at a result that is none.
        trainer.engine.module.register_comm_hook(None, _all_reduced)


def _all_reduced(
    state: None,
    bucket: distributed.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    distributed.all_reduce(bucket.buffer())
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def in_process(engine: str, world: int, micro_batches: int, what: str) -> Counted:
    """One case in a forked process."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def run() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        theirs.send(count(engine, world, micro_batches, what, timed=TIMED))

    process = context.Process(target=run)
    process.start()
    theirs.close()
    try:
        found: Counted = ours.recv()
    except EOFError:
        raise SystemExit(f"{engine} on {world} ranks: no result") from None
    finally:
        process.join()
    return found


def growth(cases: dict[tuple[int, int], Counted]) -> dict[str, Any]:
    """Calls of a step as `a + b x micro-batches`, by collective, and what that does not explain;
    `cases` by world and number of micro-batches.
    """
    micro_batches = sorted({number for _, number in cases})
    low, high = micro_batches[0], micro_batches[-1]
    first = min(world for world, _ in cases)
    names = sorted({name for case in cases.values() for name in case.calls})
    lines, unexplained = {}, []
    for name in names:
        at_low, at_high = (cases[first, number].calls.get(name, 0) for number in (low, high))
        each = (at_high - at_low) / (high - low) if high > low else 0
        lines[name] = {"step": at_low - each * low, "micro_batch": each}
        for (world, number), case in cases.items():
            found, wanted = case.calls.get(name, 0), at_low + each * (number - low)
            if found != wanted:
                told = f"{found} {name} on {world} ranks with {number} micro-batches"
                unexplained.append(f"{told}, not {wanted:g}")
    return {"calls": lines, "unexplained": unexplained}


def main() -> int:
    """Count all cases; a line for each engine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engines", nargs="+", choices=tuple(ENGINES), default=list(ENGINES))
    parser.add_argument("--worlds", nargs="+", type=int, default=list(WORLDS))
    parser.add_argument("--micro-batches", nargs="+", type=int, default=list(MICRO_BATCHES))
    parser.add_argument("--what", choices=("stage1", "lora", "full"), default="full")
    parser.add_argument("--json", action="store_true", help="print every case as JSON")
    given = parser.parse_args()
    found, grows = {}, False
    for engine in given.engines:
        cases = {
            (world, number): in_process(engine, world, number, given.what)
            for world in given.worlds
            for number in given.micro_batches
        }
        result = growth(cases)
        grows = grows or bool(result["unexplained"])
        milliseconds = {
            world: cases[world, min(given.micro_batches)].step_ms for world in given.worlds
        }
        found[engine] = {
            **result,
            "step_ms": milliseconds,
            "cases": [
                {"world_size": world, "micro_batches": number, **vars(case)}
                for (world, number), case in cases.items()
            ],
        }
        if not given.json:
            print(line(engine, found[engine]))
    if given.json:
        print(json.dumps(found, indent=1))
    return int(grows)


def line(engine: str, found: dict[str, Any]) -> str:
    """What an engine's step asks for."""
    parts = [
        f"{name} {each['step']:g}"
        + (f" + {each['micro_batch']:g} a micro-batch" if each["micro_batch"] else "")
        for name, each in found["calls"].items()
    ]
    milliseconds = ", ".join(f"{ms} on {world}" for world, ms in found["step_ms"].items())
    told = f"{engine}: {'; '.join(parts)}; CPU ms of its shortest step: {milliseconds} ranks"
    return "\n  ".join([told, *found["unexplained"]])


if __name__ == "__main__":
    raise SystemExit(main())
