"""Other GPUs that carry a recipe out: for a comparison, and for the refusal of a plan that does not
fit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from densekit.errors import UsageError
from densekit.planner.search import USABLE, Candidate, Job, Place, usual_nodes
from densekit.planner.time import Interval
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import GIB, HARDWARE, Hardware
from densekit.spec.math import Lora

COUNTS = (1, 2, 4, 8, 16, 32, 64)
PAPER_LORA = Lora(r=128, alpha=256)


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A place where the recipe fits."""

    candidate: Candidate
    hours: Interval

    @property
    def gpu_hours(self) -> Interval:
        """Hours of all GPUs together."""
        return self.hours.times(self.candidate.place.gpus)


def alternatives(job: Job, steps: int, own: int) -> list[Alternative]:
    """Of every kind the fewest GPUs that fit and, where they fit too, `own`; the fewest GPU-hours
    first.
    """
    found: list[Alternative] = []
    for row in HARDWARE:
        counts = [count for count in COUNTS if count <= job.recipe.global_batch_size]
        fewest = next(places_that_fit(job, [row], counts), None)
        asked = next(places_that_fit(job, [row], [own]), None)
        for candidate in (fewest, asked):
            if candidate is not None and not (
                candidate is asked and fewest and fewest.place.gpus == own
            ):
                hours = candidate.expected.seconds.times(steps / 3600)
                found.append(Alternative(candidate=candidate, hours=hours))
    return sorted(found, key=lambda one: one.gpu_hours.middle)


def places_that_fit(
    job: Job, kinds: Sequence[Hardware], counts: Sequence[int]
) -> Iterator[Candidate]:
    """The best candidate of every place where one fits, kinds outside, counts inside."""
    for row in kinds:
        for count in counts:
            try:
                best = job.best(Place(hardware=row, gpus=count, nodes=usual_nodes(row, count)))
            except UsageError:
                break  # the number type or the kernel that was asked for does not run on this kind
            if best is not None:
                yield best


def refusal(job: Job, place: Place) -> UsageError:
    """Why nothing fits on a place, and the nearest that does."""
    candidates = job.candidates(place)
    smallest = min(candidates, key=lambda one: one.memory.peak)
    need, have = smallest.memory.peak, place.hardware.memory
    if need <= USABLE * have:
        on_node = smallest.memory.host * place.gpus / place.nodes / GIB
        why = f"offload needs {on_node:.0f} GiB of main memory in each node, of {place.hardware.host_gib}"
    else:
        why = (
            f"its smallest worst-case row needs {need / GIB:.1f} GiB of each GPU, and {USABLE:.0%} of "
            f"{have / GIB:.1f} can be filled"
        )
    nearest = list(dict.fromkeys(offers(job, place)))
    told = "; ".join(nearest) if nearest else "no GPU of the table, up to 64 of them"
    return UsageError(
        f"{place}: {job.recipe.name} does not fit: {why}; what fits: {told} (--micro-batch N insists on this place)"
    )


def offers(job: Job, place: Place) -> Iterator[str]:
    """What fits instead, as options: less fixed, more GPUs, other GPUs, LoRA."""
    free = replace(
        job,
        request=ExecutionRequest(dtype=job.request.dtype, attention=job.request.attention),
    )
    restricted = job.request != free.request
    if restricted and (best := free.best(place)) is not None:
        yield f"{place}{_options(best)}"
    own = place.hardware
    total = job.recipe.global_batch_size
    more = [count for count in COUNTS if place.gpus < count <= total]
    others = [row for row in HARDWARE if row.name != own.name]
    for kinds, counts in (([own], more), (others, [place.gpus]), (others, more)):
        found = next(places_that_fit(free, kinds, counts), None)
        if found is not None:
            with_offload = " (with offload)" if found.layout.offload else ""
            yield f"{found.place}{_options(found) if restricted else with_offload}"
            if kinds is others:
                break
    if job.trains == "full":
        adapters = replace(free, recipe=job.recipe.model_copy(update={"lora": PAPER_LORA}))
        found = next(places_that_fit(adapters, [own], [place.gpus, *more]), None)
        if found is not None:
            lora = f" --set 'lora={{r: {PAPER_LORA.r}, alpha: {PAPER_LORA.alpha}}}' (another experiment)"
            yield f"{found.place}{_options(found) if restricted else ''}{lora}"


def _options(found: Candidate) -> str:
    """A layout as options, for a command line that fixes another one."""
    layout = found.layout
    offload = " --offload" if layout.offload else ""
    return f" --zero-stage {layout.zero_stage}{offload} --{'' if layout.checkpointing else 'no-'}activation-checkpointing"
