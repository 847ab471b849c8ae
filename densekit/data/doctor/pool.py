"""Work on many items in several processes; an item whose process dies is found and left out.

A decoder may end its process (a damaged file, memory that runs out), so what was being worked on
then is tried again alone.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
CHUNK = 64
"""Items that a process takes at a time."""
_worker: Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Job(Generic[T, R]):
    """What is done with an item: `make(*arguments)` gives the function, once in every process."""

    make: Callable[..., Callable[[T], R]]
    arguments: tuple[Any, ...]
    what: str
    """For the lines of progress, e.g. `images of train.json decoded`."""

    def run(
        self, items: Sequence[T], workers: int, progress_every: int = 20_000
    ) -> Iterator[tuple[T, R | None]]:
        """Yield each item with its result, in any order; None where its process died.

        `workers`: processes; 0: this one.
        """
        for done, result in enumerate(self._results(items, workers), start=1):
            yield result
            if done % progress_every == 0:
                print(f"{self.what}: {done} of {len(items)}", file=sys.stderr)

    def _results(self, items: Sequence[T], workers: int) -> Iterator[tuple[T, R | None]]:
        if workers == 0:
            function = self.make(*self.arguments)
            yield from ((item, function(item)) for item in items)
            return
        pending = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
        while pending:
            failed: list[Sequence[T]] = []
            yield from self._pooled(pending, workers, failed)
            # What is worked on is what was given first: the fault is among these.
            for chunk in failed[:workers]:
                alone: list[Sequence[T]] = []
                yield from self._pooled([chunk], 1, alone)
                for item in alone[0] if alone else ():
                    dead: list[Sequence[T]] = []
                    yield from self._pooled([[item]], 1, dead)
                    if dead:
                        yield item, None
            pending = failed[workers:]

    def _pooled(
        self, chunks: Sequence[Sequence[T]], workers: int, failed: list[Sequence[T]]
    ) -> Iterator[tuple[T, R | None]]:
        """Yield the results of the chunks; fills `failed` with those of a pool that broke."""
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
        with ProcessPoolExecutor(
            max_workers=min(workers, len(chunks)),
            mp_context=context,
            initializer=_start,
            initargs=(self.make, self.arguments),
        ) as pool:
            futures: dict[Future[list[R]], int] = {}
            broken: list[int] = []
            try:
                for number, chunk in enumerate(chunks):
                    futures[pool.submit(_work, list(chunk))] = number
            except BrokenProcessPool:
                broken += range(len(futures), len(chunks))
            for future in as_completed(futures):
                number = futures[future]
                try:
                    results = future.result()
                except BrokenProcessPool:
                    broken.append(number)
                    continue
                yield from zip(chunks[number], results, strict=True)
        failed += [chunks[number] for number in sorted(broken)]


def usual_workers() -> int:
    """Processes where nobody says how many."""
    return min(len(os.sched_getaffinity(0)), 32)


def _start(make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _worker
    _worker = make(*arguments)


def _work(items: list[Any]) -> list[Any]:
    return [_worker(item) for item in items]
