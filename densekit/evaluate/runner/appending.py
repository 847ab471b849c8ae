"""All questions of a benchmark, a batch per rank at a time; rank 0 appends the answers in the
plan's order.
"""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from torch import distributed

from densekit.evaluate.runner.asking import Asker
from densekit.evaluate.runner.batches import Batch, Preparer
from densekit.ranks.collectives import gather_objects
from densekit.runs.answers import AnswerFile, read_answers
from densekit.runs.evaluations import (
    AskedBenchmark,
    Evaluation,
    EvaluationFolder,
    PlannedQuestion,
)
from densekit.runs.preemption import Preempted, StopRequests
from densekit.runs.progress import Progress

Plan = Sequence[PlannedQuestion]
AHEAD = 2
"""Batches that are read and decoded while the model answers an earlier one."""


def left_of(
    folder: EvaluationFolder, evaluation: Evaluation, asked: AskedBenchmark, plan: Plan
) -> list[list[PlannedQuestion]]:
    """The batches without an answer. Raises DataError for answers of another evaluation."""
    name = asked.protocol.name
    read = read_answers(folder.answers(name), evaluation.key(name), plan)
    rest = plan[len(read.lines) :]
    return [[*group] for _, group in itertools.groupby(rest, key=lambda planned: planned.batch)]


def ask_all(
    folder: EvaluationFolder,
    asked: AskedBenchmark,
    key: str,
    plan: Plan,
    left: Sequence[Plan],
    prepare: Preparer,
    ask: Asker,
    requests: StopRequests,
) -> None:
    """Ask the batches that are `left`. Raises Preempted where a stop was asked for: every batch
    that was answered is on disk.
    """
    rank, world_size = 0, 1
    if distributed.is_initialized():
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
    protocol = asked.protocol
    done = len(plan) - sum(map(len, left))
    with ExitStack() as stack:
        file = progress = None
        if rank == 0:
            path = folder.answers(protocol.name)
            read = read_answers(path, key, plan)
            file = stack.enter_context(AnswerFile(path, read, key))
            log = stack.enter_context(folder.log.open("a", encoding="utf-8"))
            label = f"{protocol.title} {protocol.split}"
            progress = Progress(label, len(plan), start=done, log=log)
        batches = _ahead(prepare, left[rank::world_size])
        for _ in range(-(-len(left) // world_size)):
            if any(gather_objects(requests.requested)):
                raise Preempted(
                    f"{protocol.title}: stopped after {done} of {len(plan)} answers, which are kept"
                )
            batch = next(batches, None)
            for answers in gather_objects(ask(batch) if batch is not None else []):
                done += len(answers)
                if file is not None and answers:
                    file.append(answers)
            if progress is not None:
                progress.update(done)


def _ahead(prepare: Preparer, batches: Sequence[Plan]) -> Iterator[Batch]:
    """The batches, made in a thread of their own a little before they are asked for."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = [pool.submit(prepare, batch) for batch in batches[:AHEAD]]
        for number in range(len(batches)):
            if number + AHEAD < len(batches):
                waiting.append(pool.submit(prepare, batches[number + AHEAD]))
            yield waiting[number].result()
