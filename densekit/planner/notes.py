"""The notes of a plan: what follows from the recipe, and why a layout was taken."""

from itertools import groupby

from densekit.batching.counts import official_step_counts
from densekit.batching.order import ReferenceTopology
from densekit.planner.search import USABLE, Candidate, Job
from densekit.recipes.revisions import unpinned
from densekit.spec.hardware import GIB
from densekit.spec.recipe import Recipe
from densekit.spec.types import Device


def reference_notes(recipe: Recipe, device: Device) -> list[str]:
    """What holds on any hardware: also what is not pinned, and what the recipe says of itself."""
    reference = recipe.reference
    topology = (
        f"{reference.gpus} x {reference.per_device_batch_size} x {reference.grad_accum_steps}"
    )
    notes = [
        f"order and loss weights follow the reference topology {topology}, whatever runs it",
        f"device {device}: one process per --gpus",
    ]
    if recipe.waits_for:
        missing = ", ".join(recipe.waits_for)
        notes.append(
            f"this row needs {missing}, which densekit does not have yet: memory and hours are those without it"
        )
    return [*notes, *unpinned(recipe), *(f"recipe: {note}" for note in recipe.notes)]


def chosen_notes(job: Job, chosen: Candidate, candidates: list[Candidate]) -> list[str]:
    """Why this layout, and what its row and its time are counted with."""
    layout, hardware = chosen.layout, chosen.place.hardware
    how = f"ZeRO stage {layout.zero_stage}, activation checkpointing {'on' if layout.checkpointing else 'off'}"
    how += ", offload" if layout.offload else ""
    fitting = sum(one.fits for one in candidates)
    length = job.recipe.data.max_length
    row = (
        f"a worst-case row ({chosen.micro_batch_size} x {length} tokens) takes {chosen.memory.peak / GIB:.1f} GiB of "
        f"{hardware.memory / GIB:.1f}; {USABLE:.0%} may be filled"
    )
    if not chosen.fits:
        return [
            f"does not fit: {row}; planned because --micro-batch {job.request.micro_batch_size} was asked for"
        ]
    reason = "the only way that fits" if fitting == 1 else f"the fastest of {fitting} ways that fit"
    if len(candidates) == 1:
        reason = "as asked for"
    measured = job.measured.get(hardware.name)
    low, high = measured or hardware.efficiency
    source = "as earlier runs measured" if measured else "as published"
    talk = f"; GPUs of a node are linked by {hardware.link_name}" if chosen.place.gpus > 1 else ""
    hosted = []
    if layout.offload:
        each = chosen.memory.host * chosen.place.gpus / chosen.place.nodes / GIB
        hosted = [
            f"offload: {each:.0f} GiB of main memory in each node; {hardware.host_gib} GiB are there, or assumed"
        ]
    return [
        f"{how}: {reason}" + (" (--why lists them all)" if len(candidates) > 1 else ""),
        f"memory: {row}",
        f"hours: {low:.0%} to {high:.0%} of the peak of {hardware.name} is reached, {source}; {hardware.source}{talk}",
        *hosted,
    ]


def tail_notes(recipe: Recipe, samples: int) -> list[str]:
    """What the end of an epoch does to the number of steps, where that is not obvious
    (docs/upstream.md, U9).
    """
    if recipe.semantics_of("U9") == "fixed":
        short = samples % recipe.global_batch_size
        return (
            [f"ledger U9 fixed: the last step of every epoch has {short} samples"] if short else []
        )
    official = official_step_counts(samples, ReferenceTopology.of(recipe.reference))
    if recipe.optimizer.max_steps or len(set(official.values())) == 1:
        return []
    told = [
        f"{steps} with accumulation {', '.join(str(accumulation) for accumulation, _ in same)}"
        for steps, same in groupby(official.items(), key=lambda item: item[1])
    ]
    return [
        f"the official trainer's steps per epoch depend on its accumulation: {'; '.join(told)}; "
        f"counted here with {recipe.reference.grad_accum_steps}"
    ]
