"""Run every case of a set of recordings, and say how far parity holds."""

import sys
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from densekit.errors import DataError
from densekit.parity.compare import Quantity, run_case
from densekit.parity.find import find_cases, not_recorded, unsupported
from densekit.runs.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a set of recordings came to."""

    cases: dict[str, dict[str, Quantity]]
    """The quantities of every case that ran, by name."""
    unsupported: list[str]
    """Folders of a kind that densekit does not implement yet."""
    not_recorded: list[str]
    """Kinds of recordings that the set does not hold."""

    @property
    def failing(self) -> list[str]:
        """Names of the cases that do not hold."""
        return [name for name, quantities in self.cases.items() if not _holds(quantities)]

    @property
    def ok(self) -> bool:
        """Whether every case that ran holds."""
        return not self.failing

    def as_json(self) -> dict[str, Any]:
        """What `densekit parity --json` prints."""
        cases = {
            name: {quantity: value.as_json() for quantity, value in quantities.items()}
            for name, quantities in self.cases.items()
        }
        return {
            "cases": cases,
            "unsupported": self.unsupported,
            "not_recorded": self.not_recorded,
            "ok": self.ok,
        }

    def last_line(self) -> str:
        """The verdict in one line; every case that was found is in one of its counts."""
        count = len(self.cases) + len(self.unsupported)
        total = f"{count} case" if count == 1 else f"{count} cases"
        if self.ok:
            parts = [f"parity holds for {len(self.cases)} of {total}"]
        else:
            parts = [f"parity fails for {len(self.failing)} of {total}"]
            parts.append(f"failed: {', '.join(self.failing)}")
        for what, names in (
            ("not supported", self.unsupported),
            ("not recorded", self.not_recorded),
        ):
            if names:
                parts.append(f"{what}: {', '.join(names)}")
        return "; ".join(parts)


def run_parity(root: Path, *, progress: bool) -> Report:
    """Run every case; progress goes to stderr.

    Raises DataError when the folder does not exist or holds no case.
    """
    import torch
    from transformers.utils import logging

    root = root.resolve()  # recordings name files by their place beside others
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # the recorded models are tiny: more threads only wait for each other
    cases = list(find_cases(root))
    if not cases:
        raise DataError(
            f"{root} holds no recorded case: expected folders such as clip_dci, sampler or"
            " tokenization, or files such as gqa_answer.json"
        )
    shown = Progress("parity", len(cases), stream=sys.stderr, enabled=progress)
    results = {}
    for number, case in enumerate(cases):
        results[case.name] = run_case(case.check)
        shown.update(number + 1)
    return Report(
        cases=results, unsupported=unsupported(root), not_recorded=not_recorded(root, cases)
    )


def print_report(report: Report, *, verbose: bool) -> None:
    """A line per case, what does not hold, every quantity with `verbose`, then the verdict."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.print("worst: the largest difference / tolerance among the quantities of a case\n")
    console.print(_summary(report))
    for name, quantities in report.cases.items():
        chosen = {key: q for key, q in quantities.items() if verbose or not q.ok}
        if chosen:
            console.print(f"\n{name}")
            console.print(_details(chosen))
    if report.failing or verbose:
        console.print()
    print(report.last_line())


def _summary(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("case", overflow="fold")
    table.add_column("ok", justify="right", no_wrap=True)
    table.add_column("worst", justify="right", no_wrap=True)
    table.add_column("quantity", overflow="fold")
    for name, quantities in report.cases.items():
        good = sum(quantity.ok for quantity in quantities.values())
        worst = max(quantities, key=lambda key: quantities[key].worst_ratio)
        ratio = quantities[worst].worst_ratio
        table.add_row(
            name,
            f"{good} of {len(quantities)}",
            {0.0: "exact", inf: "differs"}.get(ratio, f"{ratio:.2g}"),
            worst if ratio else "",
            style=None if _holds(quantities) else "bold red",
        )
    for name in report.unsupported:
        table.add_row(name, "-", "-", "not supported yet")
    return table


def _details(quantities: dict[str, Quantity]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, quantity in quantities.items():
        difference = quantity.max_abs_diff
        verdict = "ok" if quantity.ok else "FAILS"
        table.add_row(
            f"  {name}",
            "-" if difference is None else f"{difference:.3g}",
            "exact" if quantity.tolerance == 0 else f"tolerance {quantity.tolerance:.3g}",
            f"{verdict}: {quantity.error}" if quantity.error else verdict,
        )
    return table


def _holds(quantities: dict[str, Quantity]) -> bool:
    return all(quantity.ok for quantity in quantities.values())
