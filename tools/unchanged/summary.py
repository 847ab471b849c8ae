"""The verdict on every item, and the table that people read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.unchanged.compare import Declaration, Difference, compare, count_values
from tools.unchanged.items import Item


@dataclass(frozen=True)
class Verdict:
    """What the comparison of one item found."""

    item: Item
    values: int
    seconds: tuple[float, float]
    differences: list[Difference]
    failures: list[str]

    @property
    def same(self) -> bool:
        """Two sides that fail alike are not the same: nothing was compared."""
        return not self.differences and not self.failures

    @property
    def word(self) -> str:
        """For the table."""
        if self.failures:
            return "FAILED"
        return f"DIFFERS ({len(self.differences)})" if self.differences else "same"

    def as_json(self) -> dict[str, Any]:
        """Every difference, with both values."""
        return {
            "item": self.item.name,
            "same": self.same,
            "values": self.values,
            "seconds": dict(zip(("base", "tree"), self.seconds, strict=True)),
            "failures": self.failures,
            "differences": [difference.as_json() for difference in self.differences],
        }


def judge(
    items: Sequence[Item],
    base: Mapping[str, Any],
    tree: Mapping[str, Any],
    declared: list[Declaration],
) -> list[Verdict]:
    """Compare the results of both sides, item by item."""
    verdicts = []
    for item in items:
        sides = {"base": base[item.name], "tree": tree[item.name]}
        failures = [f"{name}: {side['failed']}" for name, side in sides.items() if "failed" in side]
        old, new = (side.get("value") for side in sides.values())
        differences = [] if failures else list(compare(item.name, old, new, declared))
        seconds = (sides["base"]["seconds"], sides["tree"]["seconds"])
        verdicts.append(Verdict(item, count_values(old), seconds, differences, failures))
    return verdicts


def print_summary(
    verdicts: Sequence[Verdict],
    declared: Sequence[Declaration],
    *,
    everything: bool,
) -> None:
    """The table, the first difference of each item, and what the declarations did."""
    rows = [("item", "what is compared", "values", "base s", "tree s", "")]
    for verdict in verdicts:
        base, tree = (f"{seconds:.1f}" for seconds in verdict.seconds)
        item, values = verdict.item, str(verdict.values)
        rows.append((item.name, item.what, values, base, tree, verdict.word))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[2:5] = (cell.strip().rjust(len(cell)) for cell in cells[2:5])
        print("  ".join(cells).rstrip())
    for verdict in verdicts:
        for failure in verdict.failures:
            print(f"\n{verdict.item.name} failed on {failure}")
        if verdict.differences:
            print("\n" + "\n".join(verdict.differences[0].lines()))
            if len(verdict.differences) > 1:
                print(f"  and {len(verdict.differences) - 1} more of this item")
    for one in declared:
        if one.acted:
            print(f"declared, {one.acted} times: {one.line()}")
        elif everything:
            print(f"note: a declaration that no longer acts: {one.line()}")
    same = all(verdict.same for verdict in verdicts)
    total = sum(verdict.values for verdict in verdicts)
    word = "UNCHANGED" if same else "CHANGED"
    print(f"\n{word}: {total} values of {len(verdicts)} items were compared")
