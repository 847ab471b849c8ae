"""The notes of a plan: what follows from the recipe, and why an execution was chosen."""

from itertools import groupby

from densekit.batching.counts import official_step_counts
from densekit.planner.candidates import Candidate, SearchSpace
from densekit.planner.cluster import USABLE
from densekit.recipes.revisions import unpinned
from densekit.spec.capability import container_image_for
from densekit.spec.hardware import GIB, Hardware
from densekit.spec.recipe import Recipe
from densekit.spec.types import Device


class Caution(str):
    """A note on which the plan itself depends; the others give reasons (`--why`)."""


def reference_notes(recipe: Recipe, device: Device) -> list[str]:
    """What holds on any hardware: also what is not pinned, and the recipe's own notes."""
    reference = recipe.reference
    topology = (
        f"{reference.gpus} x {reference.per_device_batch_size} x {reference.grad_accum_steps}"
    )
    notes = [
        f"order and loss weights follow the reference topology {topology} on any hardware",
        f"device {device}: --gpus counts processes, one per GPU"
        if device == "cuda"
        else f"device {device}: --gpus counts processes",
    ]
    return [*notes, *unpinned(recipe), *(f"recipe: {note}" for note in recipe.notes)]


def no_room_for_answers(recipe: Recipe, image_tokens: int) -> str | None:
    """Why no answer behind the largest image, of so many tokens, is learnt; None where one is."""
    max_length = recipe.data.max_length
    if max_length > image_tokens:
        return None
    up_to, usual = "", "paper: 2048"
    if recipe.data.anyres:
        up_to, usual = "up to ", "the AnyRes recipes have 4096"
    return (
        f"data.max_length is {max_length}, but an image alone has {up_to}{image_tokens} tokens: "
        "every answer behind such a one would be cut off, and nothing learnt from it; give more "
        f"than {image_tokens} plus the length of question and answer ({usual})"
    )


def _untried(hardware: Hardware) -> str:
    """What is not known of a kind of GPU."""
    if container_image_for(hardware.capability) is not None:
        return "densekit was never tried on such a card"
    major, minor = hardware.capability
    return f"no container image has kernels for compute capability {major}.{minor}"


def choice_notes(space: SearchSpace, chosen: Candidate, candidates: list[Candidate]) -> list[str]:
    """Why this execution, and what its memory and its time are counted with."""
    execution, hardware = chosen.execution, chosen.cluster.hardware
    worst = (
        f"a worst-case micro-batch ({execution.tokens_per_micro_batch} tokens) takes "
        f"{chosen.memory.peak / GIB:.1f} GiB of {hardware.memory / GIB:.1f}; "
        f"{USABLE:.0%} may be filled"
    )
    if not chosen.fits:
        size = space.request.micro_batch_size
        why = f"planned because --micro-batch {size} was given"
        return [Caution(f"does not fit: {worst}; {why}")]
    notes = [f"{', '.join(execution.engine())}: {_reason(candidates)}", f"memory: {worst}"]
    if hardware.planned_only:
        notes.append(Caution(f"{hardware.name} is for planning only: {_untried(hardware)}"))
    measured = space.measured.get(hardware.name)
    low, high = measured or hardware.efficiency
    source = "as earlier runs measured" if measured else "as published"
    link = (
        f"; GPUs of a node are linked by {hardware.link_name}" if execution.world_size > 1 else ""
    )
    notes.append(
        f"hours: at {low:.0%} to {high:.0%} of the peak of {hardware.name}, {source}; "
        f"{hardware.source}{link}"
    )
    if execution.cpu_offload:
        cluster = chosen.cluster
        in_node = chosen.memory.host * cluster.world_size / cluster.nodes / GIB
        notes.append(
            f"CPU offload: {in_node:.0f} GiB of host RAM in each node; "
            + (
                f"this host has {hardware.host_gib} GiB"
                if hardware.host_measured
                else f"{hardware.host_gib} GiB are assumed, as in a usual node"
            )
        )
    return notes


def short_of_host_ram(needed: int, copied: float, hardware: Hardware) -> str:
    """A note on nodes with less than the `needed` GiB of host RAM, `copied` of them for the copy of
    a checkpoint.
    """
    has = "this host has" if hardware.host_measured else "a usual node is assumed to have"
    of_them = "of them for the copy of a checkpoint that is written while training goes on"
    copy = f", {copied:.0f} {of_them}" if copied else ""
    return Caution(
        f"host RAM: {needed} GiB are needed in each node{copy}; {has} {hardware.host_gib} GiB: use "
        "more nodes"
    )


def _reason(candidates: list[Candidate]) -> str:
    if len(candidates) == 1:
        return "as requested"
    fitting = sum(candidate.fits for candidate in candidates)
    ways = "the only way that fits" if fitting == 1 else f"the fastest of {fitting} ways that fit"
    return f"{ways} (--why lists them all)"


def tail_notes(recipe: Recipe, samples: int) -> list[str]:
    """What the end of an epoch does to the number of steps, where that is not obvious
    (docs/upstream.md, U9).
    """
    if recipe.semantics_of("U9") == "fixed":
        short = samples % recipe.global_batch_size
        return (
            [f"ledger U9 fixed: the last step of every epoch has {short} samples"] if short else []
        )
    official = official_step_counts(samples, recipe.reference)
    if recipe.optimizer.max_steps or len(set(official.values())) == 1:
        return []
    counts = "; ".join(
        f"{steps} with accumulation {', '.join(str(accumulation) for accumulation, _ in same)}"
        for steps, same in groupby(official.items(), key=lambda item: item[1])
    )
    return [
        f"the official trainer's steps per epoch depend on its accumulation: {counts}; "
        f"counted here with {recipe.reference.grad_accum_steps}"
    ]
