"""What the runs of the claim say: the verdict's table, and the power that they had."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densekit.cli.verdict_tables import power_lines, verdict_lines
from densekit.evaluate.arms import read_arm
from densekit.evaluate.power import power_of
from densekit.evaluate.verdict import judge
from densekit.recipes.paper import load_paper
from densekit.runs.calibrations import read_calibrations
from densekit.runs.verdicts import write_verdict
from densekit.toy.easy_vqa import TEST, TRAIN, package_folder, read_part


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is printed, and whether the claim is contradicted."""

    lines: tuple[str, ...]
    failed: bool


def outcome_lines(runs: Sequence[Path], baseline: Sequence[Path], runs_dir: Path) -> Outcome:
    """Judge the runs of one arm against those of the other, as `densekit verdict --baseline` does.

    Raises DataError and UsageError as it does.
    """
    arm, other = read_arm(runs), read_arm(baseline)
    found = judge(arm, other, load_paper(), read_calibrations(runs_dir))
    for member in arm.members:
        write_verdict(member.path, found)
    assert found.gains is not None
    power = power_of(found.gains)
    blind = f"{blind_accuracy(package_folder()):.2f}"
    lines = [
        *verdict_lines(found, None, why=True),
        f"easy-VQA without the pictures, by the commonest answer to each question's text: {blind}",
        "",
        "The power that was available, with the noise that these runs have:",
        *(power_lines(power) if power else ["unknown: it takes two runs of an arm"]),
    ]
    return Outcome(lines=tuple(lines), failed=found.failed)


def blind_accuracy(package: Path) -> float:
    """What the commonest answer of the train part to each text scores on the test part, percent."""
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for rows in read_part(package, TRAIN).values():
        for row in rows:
            answers[row.text][row.answer] += 1
    asked = [row for rows in read_part(package, TEST).values() for row in rows]
    right = [answers[row.text].most_common(1)[0][0] == row.answer for row in asked]
    return 100 * sum(right) / len(right)
