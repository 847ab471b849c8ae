"""Does DCI answer easy-vqa better than the features of one layer?

`make claim` makes data and tiny models, trains both arms with three seeds through both stages, asks
each model the 9,673 questions of the test part, and prints the verdict, and how small a difference
these runs could have shown. Interrupted, the same command goes on. Exit code 1: the claim is
contradicted.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from densekit.cli.site import site_settings
from densekit.errors import DensekitError

ARMS = ("tiny_easy_vqa_dci_stage2", "tiny_easy_vqa_none_stage2")
"""Is the first better than the second?"""
SEEDS = (1, 2, 3)
"""Named before anything was trained; the recipes were tried with seed 0."""
AT_ONCE = 2
LIMITS = """\
Tower and language model are tiny, the tower's weights are drawn, and a picture shows one shape:
nothing about the paper follows from this, whatever came out. What it shows is that the path from
data to verdict runs, and how large a difference must be for three seeds an arm to show it."""


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="make claim", description=__doc__)
    parser.add_argument("--prepare", action="store_true", help="make data and models, and stop")
    parser.add_argument(
        "--at-once", type=int, default=AT_ONCE, help="trainings at a time, each on its own core"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=SEEDS, help="one training an arm of each"
    )
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs/claim"), help="folder of the runs"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a value of the recipes, as of `densekit run`",
    )
    given = parser.parse_args()
    began, cpu_began = time.monotonic(), _cpu_seconds()
    from claim.outcome import outcome_lines
    from claim.prepare import prepare
    from claim.training import Training, train_all

    site = site_settings(runs_dir=given.runs_dir)
    prepare(site.roots)
    if given.prepare:
        return 0
    trainings = [
        Training(recipe=arm, seed=seed, more=tuple(given.set))
        for seed in dict.fromkeys(given.seeds)
        for arm in ARMS
    ]
    code = train_all(trainings, site.runs_dir, site.roots, at_once=given.at_once)
    if code:
        return code
    runs = {
        arm: [each.run(site.runs_dir, site.roots) for each in trainings if each.recipe == arm]
        for arm in ARMS
    }
    found = outcome_lines(runs[ARMS[0]], runs[ARMS[1]], site.runs_dir)
    print("\n".join(["", *found.lines, "", LIMITS, ""]))
    minutes, cpu = (time.monotonic() - began) / 60, (_cpu_seconds() - cpu_began) / 60
    print(f"This call: {minutes:.1f} minutes, {cpu:.1f} of CPU, {os.cpu_count()} cores here.")
    return 1 if found.failed else 0


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DensekitError as error:
        print(f"make claim: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
