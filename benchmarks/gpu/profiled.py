"""What a step spends its time on: the ten kernels that take most, and when nothing ran."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

TOP = 10
SHORTEST_GAP = 10.0
"""Microseconds: what lies between two kernels of a busy queue is no gap."""
Interval = tuple[float, float, str]
"""Beginning and end in microseconds, and what ran."""


def profiled(step: Callable[[], Any], device: str) -> dict[str, Any]:
    """The profile of one call: kernels of the GPU, or the operations of a CPU."""
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        step()
        if device == "cuda":
            torch.cuda.synchronize()
    taken: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    ran: list[Interval] = []
    for event in recorded.events():
        if device == "cuda":
            if event.device_type != DeviceType.CUDA:
                continue
            microseconds, outermost = event.time_range.elapsed_us(), True
        else:
            microseconds, outermost = event.self_cpu_time_total, event.cpu_parent is None
        taken[event.name] += microseconds
        calls[event.name] += 1
        if outermost:
            ran.append((event.time_range.start, event.time_range.end, event.name))
    total = sum(taken.values())
    return {
        "top": [
            {
                "name": name[:100],
                "ms": round(microseconds / 1000, 3),
                "share": round(microseconds / total, 4),
                "calls": calls[name],
            }
            for name, microseconds in taken.most_common(TOP)
        ],
        **gaps(ran),
    }


def gaps(ran: Sequence[Interval]) -> dict[str, Any]:
    """From the first kernel to the end of the last one: the share in which any ran, and what lies
    around the longest times in which none did.
    """
    ordered = sorted(ran)
    begin, end, last = ordered[0]
    busy, found = 0.0, []
    first = begin
    for start, stop, name in ordered[1:]:
        if start > end:
            busy += end - begin
            if start - end >= SHORTEST_GAP:
                found.append((start - end, last, name))
            begin, end, last = start, stop, name
        elif stop > end:
            end, last = stop, name
    busy += end - begin
    longest = sorted(found, reverse=True)[:3]
    return {
        "busy_share": round(busy / max(end - first, 1e-9), 4),
        "gaps": len(found),
        "gap_ms": round(sum(each[0] for each in found) / 1000, 3),
        "longest_gaps": [
            {"ms": round(us / 1000, 3), "after": after[:60], "before": before[:60]}
            for us, after, before in longest
        ],
    }
