"""Whether metrics.jsonl, feed.jsonl and the hash chain fit each other: what `verify` asks of a
whole run, and a trainer of the steps before the checkpoint it resumes from.
"""

from collections.abc import Sequence
from pathlib import Path

from densekit.batching.certificate import step_digest
from densekit.errors import DataError
from densekit.runs.records import (
    FEED_FILE,
    METRICS_FILE,
    REMEDY,
    Position,
    StepFeed,
    StepRecord,
    chain_next,
    images_digest,
    read_feed,
    read_steps,
)


def first_problem(
    start: str, steps: Sequence[StepRecord], feed: Sequence[StepFeed], *, run: Path
) -> str | None:
    """The first step in which the records of the run directory `run` do not fit, in words; None
    when every step does. `start` is chain 0, the run's own hash.
    """
    chain = start
    for record in steps:
        if record.step > len(feed):
            return (
                f"{run / FEED_FILE} ends before step {record.step}, which {run / METRICS_FILE} has"
            )
        problem = _step_problem(chain, record, feed[record.step - 1], run=run)
        if problem is not None:
            return problem
        chain = record.chain
    return None


def check_up_to(position: Position, *, run: Path, run_sha256: str) -> None:
    """Raise DataError unless the records before `position` are those that were written: each step
    fits its feed and the chain, which ends as the checkpoint says.
    """
    steps = read_steps(run / METRICS_FILE, size=position.metrics_bytes)
    feed = read_feed(run / FEED_FILE, size=position.feed_bytes)
    problem = first_problem(run_sha256, steps, feed, run=run)
    ends = (len(steps), len(feed), steps[-1].chain if steps else run_sha256)
    if problem is None and ends != (position.steps, position.steps, position.chain):
        problem = (
            f"{run / METRICS_FILE} and {run / FEED_FILE} hold other steps than the "
            f"{position.steps} that the checkpoint counts"
        )
    if problem is not None:
        raise DataError(f"{problem}; {REMEDY}")


def _step_problem(chain: str, record: StepRecord, fed: StepFeed, *, run: Path) -> str | None:
    """What does not fit in one step, in words; `chain` is that of the step before."""
    metrics, feed = run / METRICS_FILE, run / FEED_FILE
    fits = chain_next(chain, record) == record.chain
    digests = {"ids": step_digest(fed.samples), "images": images_digest(fed.images)}
    for name, digest in digests.items():
        if getattr(record, name) != digest:
            edited = feed if fits else metrics  # the chain covers the metrics' digests
            return f"step {record.step}: `{name}` does not match the feed: {edited} was edited"
    if not fits:
        return (
            f"{metrics}: step {record.step} does not fit the hash chain: one of its numbers or its "
            "chain was edited"
        )
    return None
