"""A plan as people read it: one screen, the arithmetic with --why, what else would fit, and the
verdict last.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from densekit.planner.alternatives import Alternative
from densekit.planner.estimate import OfficialBatch
from densekit.planner.notes import Caution
from densekit.planner.plan import MemoryGib, Plan
from densekit.planner.time import Interval
from densekit.spec.hardware import GIB

SCREEN = 24
"""Lines, of 80 columns, that a plan without --why takes at most, with the prompt below it."""
WRAPPED = 68
"""Columns of a line of which a part hangs below the rest, at the least."""
ROWS, FEWEST_ROWS = 6, 2
"""Of what else fits, without --why."""
HEADS = (
    "what fits, fewest GPU-hours first (ratio: of the geometric means of both ends):",
    f"  {'GPU':11} {'GPUs':>4} {'nodes':>5} {'GiB':>5}  {'hours':>13}  {'GPU-hours':>15}  "
    f"{'ratio':>5}",
)


def as_json(
    plan: Plan, others: Sequence[Alternative] | None, scores: Mapping[str, float], *, why: bool
) -> dict[str, Any]:
    """A plan for programs, with `alternatives` where they were looked for, and with `why` the
    arithmetic.
    """
    values = plan.as_json() | {"reported": dict(scores)}
    if others is not None:
        values["alternatives"] = [alternative.as_json() for alternative in others]
    return values | ({"why": plan.why_as_json()} if why else {})


def lines(
    plan: Plan, others: Sequence[Alternative] | None, scores: Mapping[str, float], *, why: bool
) -> Iterator[str]:
    """A plan for people, the verdict last: without `why` what a screen of 24 lines of 80 columns
    holds, with it everything. `scores` are the reported ones, `others` what else it fits on.
    """
    nodes = plan.execution.nodes
    where = f"{plan.execution.world_size} x {plan.gpu}" + (
        f" on {nodes} nodes" if nodes > 1 else ""
    )
    above = [f"{plan.recipe} on {where}", *_above(plan, scores, why=why)]
    verdict = f"{_verdict(plan.fits)}: {_because(plan, where)}"
    rows = 0
    if others and plan.gpu_hours:
        rows = len(others) if why else min(len(others), _room(above))
    yield from above
    if others and plan.gpu_hours:
        yield from _table(others[:rows], plan.gpu_hours.geometric_mean)
    if not why:
        yield _further(plan, more=len(others or ()) - rows if rows else 0)
    yield verdict


def _above(plan: Plan, scores: Mapping[str, float], *, why: bool) -> Iterator[str]:
    """What stands above the table of what else fits."""
    for name, text in _facts(plan, why=why):
        yield f"  {name:12} {text}"
    if scores:
        words = ", ".join(f"{title} {value:g}" for title, value in scores.items())
        yield f"  {'reported':12} {words}"
    for line in plan.ledger if why else _ledger(plan.ledger):
        yield f"  {'ledger':12} {line}"
    for note in plan.notes:
        if why or isinstance(note, Caution):
            yield f"note: {note}"
    if why:
        for subject, arithmetic in plan.why.items():
            if arithmetic:
                yield f"why, {subject}:"
                yield from (f"  {line}" for line in arithmetic)


def _room(above: Sequence[str]) -> int:
    """Rows of the table for which a screen has room: below it stand three lines, the prompt among
    them.
    """
    taken = sum(-(-len(line) // WRAPPED) for line in above) + len(HEADS) + 3
    return min(ROWS, max(FEWEST_ROWS, SCREEN - taken))


def _verdict(fits: bool | None) -> str:
    return {True: "fits", False: "does NOT fit", None: "unknown"}[fits]


def _because(plan: Plan, where: str) -> str:
    """The verdict's reason, and what it costs."""
    if plan.memory_gib is None:
        return f"whether it fits on {where}, for the models' shapes are not known"
    on = "for each process" if plan.execution.device == "cpu" else f"on each of {where}"
    peak = f"{plan.memory_gib.peak:.1f} GiB {on}"
    if plan.fits is None:
        return f"{peak}; name the kind of GPU with --gpu"
    if not plan.fits:
        return peak
    hours = f"; {_range(plan.hours)} hours" if plan.hours else ""
    ram = f"; {plan.execution.host_ram_gib} GiB of host RAM a node" if plan.host_ram_short else ""
    return peak + hours + ram


def _ledger(ledger: Sequence[str]) -> Iterator[str]:
    """The keys alone, by whether they are followed."""
    words = [
        f"{state} {', '.join(keys)}"
        for state, keys in (
            ("faithful", [line.split()[0] for line in ledger if _is_followed(line)]),
            ("not followed", [line.split()[0] for line in ledger if not _is_followed(line)]),
        )
        if keys
    ]
    if words:
        yield "; ".join(words)


def _is_followed(line: str) -> bool:
    return line.split()[1].strip(":") in ("faithful", "followed")


def _further(plan: Plan, *, more: int) -> str:
    """What --why adds; `more` rows of the table among it."""
    hidden = sum(not isinstance(note, Caution) for note in plan.notes)
    parts = ["the arithmetic", f"{hidden} note{'' if hidden == 1 else 's'}"]
    if more:
        parts.append(f"{more} more row{'' if more == 1 else 's'}")
    return f"with --why: {', '.join(parts)}"


def _facts(plan: Plan, *, why: bool) -> Iterator[tuple[str, str]]:
    execution = plan.execution
    if plan.memory_gib:
        yield "memory", _memory(plan.memory_gib, why=why)
    container = f"container image {plan.container_image or 'unknown'}"
    yield "execution", f"{', '.join(execution.settings())}; {container}"
    count, size = plan.micro_batches_per_step, execution.micro_batch_size
    micro_batches = f"{count} micro-batch{'es' if count > 1 else ''} of up to {size}"
    if execution.tokens_per_micro_batch is not None:
        micro_batches += f" ({execution.tokens_per_micro_batch} tokens)"
    yield "step", f"{plan.global_batch_size} samples; on each process {micro_batches}"
    if plan.steps is None:
        yield "steps", "unknown"
    else:
        tail = f"{plan.samples_repeated} samples repeated, {plan.samples_dropped} dropped"
        yield "steps", f"{plan.steps} over {plan.num_samples} samples; {tail}"
    if plan.measured:
        yield "measured", plan.measured.describe()
    if plan.hours:
        of_all = f" ({_range(plan.gpu_hours)} GPU-hours)" if plan.gpu_hours else ""
        before = plan.measured.estimated if plan.measured else None
        instead = f"; estimated: {_range(before)}" if before else ""
        yield "hours", f"{_range(plan.hours)}{of_all}{instead}"
    if plan.cost:
        yield "cost", _range(plan.cost)
    if plan.disk_gib is not None and plan.disk_parts_gib:
        parts = _parts(plan.disk_parts_gib, plan.disk_gib, least=0.05) if why else ""
        yield "disk", f"{plan.disk_gib:.1f} GiB" + (f": {parts}" if parts else "")
    if plan.official_batch and why:
        yield "official", _official(plan.official_batch)
    if execution.certificate_sha256:
        yield "certificate", execution.certificate_sha256


def _memory(gib: MemoryGib, *, why: bool) -> str:
    parts = _parts(gib.parts, gib.peak, least=max(0.05, 0.01 * gib.peak)) if why else ""
    host = "" if gib.host is None else f"; {gib.host:.1f} GiB of host RAM per GPU"
    return f"{gib.peak:.1f} GiB in a worst-case micro-batch{f': {parts}' if parts else ''}{host}"


def _parts(gib: Mapping[str, float], total: float, *, least: float) -> str:
    """The parts with one decimal, those below `least` as `other`; they add up to the total as it is
    printed.
    """
    shown = {name: size for name, size in gib.items() if size >= least}
    tenths = {name: round(10 * size) for name, size in shown.items()}
    rest = round(10 * total) - sum(tenths.values())
    if (other := total - sum(shown.values())) >= 0.05:
        tenths["other"] = max(1, round(10 * other))
        rest -= tenths["other"]
    # What rounding adds or takes is left to the largest parts, a tenth each.
    for name in sorted(tenths, key=lambda name: -tenths[name])[: abs(rest)]:
        tenths[name] += 1 if rest > 0 else -1
    return ", ".join(f"{name} {count / 10:.1f}" for name, count in tenths.items())


def _official(batch: OfficialBatch) -> str:
    def verdict(peak: float, fits: bool) -> str:
        return f"{peak:.1f} GiB and {'fits' if fits else 'does not fit'}"

    return (
        f"{batch.per_device_batch_size} samples per device: an average micro-batch takes "
        f"{verdict(batch.average_peak_gib, batch.average_fits)}, a worst-case one "
        f"{verdict(batch.peak_gib, batch.fits)}"
    )


def _range(value: Interval) -> str:
    """Both ends as `densekit plan --json` rounds them."""
    ends = value.as_json()
    return f"{_figure(ends['low'])} to {_figure(ends['high'])}"


def _figure(value: float) -> str:
    """Of a value of three digits: no decimal from 100 on, two digits below one."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2g}"


def _table(others: Sequence[Alternative], own: float) -> Iterator[str]:
    """What else fits, beside `own`, the hours of all GPUs of the plan together."""
    yield from HEADS
    for other in others:
        execution, peak = other.candidate.execution, other.candidate.memory.peak / GIB
        offload = "  offload" if execution.cpu_offload else ""
        ratio = other.gpu_hours.geometric_mean / own
        yield (
            f"  {execution.gpu:11} {execution.world_size:4} {execution.nodes:5} {peak:5.1f}  "
            f"{_range(other.hours):>13}  {_range(other.gpu_hours):>15}  {ratio:5.2f}{offload}"
        )
