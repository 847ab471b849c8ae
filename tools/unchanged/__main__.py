"""Does the working tree compute what a commit computes? For use after a refactoring.

    make unchanged BASE=main                                  # everything
    make unchanged BASE=main ARGS='--only plan runs/ddp-1'    # some items; --list names them

Commit and working tree are run on this machine with this interpreter, on one list: training runs
of both stages and of LoRA, with one and two ranks under DDP, ZeRO-2 and ZeRO-3; the plan of every
recipe on several kinds of hardware; every recipe; run hashes and the commands of a run; parity with
the recorded numbers. The comparison is exact, that of weights bitwise. Exit code 0: the same;
1: something differs or fails; 2: a wrong command.

densekit is asked only through its command line and the files of run directories, so that the
package can be moved and renamed inside. Each side is a plain copy in a temporary folder, first on
PYTHONPATH. Every process that imports densekit, each rank of a trainer too, reports which files it
imported; one from elsewhere is a failure.

A difference that must exist is declared in tools/unchanged_expected.yaml, which says how. Results
of a commit are kept in .cache/unchanged/<commit>.json for this machine, these packages and this
list (--fresh computes them again); those of a working tree never are. The whole outcome is written
to .cache/unchanged/last.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

from tools.unchanged.cache import Cache
from tools.unchanged.checkouts import Failed, Side, extract, snapshot
from tools.unchanged.compare import read_declarations
from tools.unchanged.items import Item, all_items, select
from tools.unchanged.summary import judge, print_summary

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = ROOT / "tools" / "unchanged_expected.yaml"
KEPT = ROOT / ".cache" / "unchanged"


def collect(side: Side, item: Item) -> dict[str, Any]:
    """One item's result on one side: its value or why there is none, and the time it took."""
    began = time.monotonic()
    try:
        result: dict[str, Any] = {"value": item.collect(side)}
    except Exception as error:  # a checkout that is broken in whatever way is a result as well
        result = {"failed": f"{type(error).__name__}: {error}"}
    seconds = round(time.monotonic() - began, 1)
    told = "  FAILED" if "failed" in result else ""
    print(f"{side.name}  {item.name}  {seconds} s{told}", file=sys.stderr)
    return {**result, "seconds": seconds}


def results_of(
    side: Side,
    items: Sequence[Item],
    cache: Cache | None,
    jobs: int,
) -> dict[str, dict[str, Any]]:
    """Every item's result; what a cache has is not computed again, failures are not kept."""
    results = dict(cache.items) if cache else {}
    todo = [item for item in items if item.name not in results]
    if len(todo) < len(items):
        print(f"{side.name}  {len(items) - len(todo)} items: kept results", file=sys.stderr)
    if todo:
        print(f"{side.name}  densekit is {side.imported_from()}", file=sys.stderr)
    with ThreadPoolExecutor(jobs) as pool:
        computed = pool.map(partial(collect, side), todo)
        for item, result in zip(todo, computed, strict=True):
            results[item.name] = result
            if cache and "failed" not in result:
                cache.put(item.name, result)
    return results


def resolve(base: str) -> str | None:
    """The full hash of a commit; None for what is none."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tools.unchanged", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("base", nargs="?", help="the commit to compare with, or a folder that is a checkout")
    add("--tree", type=Path, default=ROOT, help="the checkout to judge; by default this one")
    add("--only", nargs="+", default=[], metavar="ITEM", help="items, groups as plan, patterns")
    add("--fresh", action="store_true", help="compute the commit's results again")
    add("--cache", type=Path, default=KEPT, help="folder of the commits' results")
    add("--jobs", type=int, default=2, help="items at a time (2)")
    add("--expected", type=Path, default=EXPECTED, help="the declared differences")
    add("--output", type=Path, default=KEPT / "last.json", help="where the outcome is written")
    add("--keep", action="store_true", help="leave the temporary folder, run directories included")
    add("--list", action="store_true", help="name the items and stop")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; returns an exit code."""
    asked = parse(arguments)
    if asked.list:
        print("\n".join(f"{item.name:18} {item.what}" for item in all_items()))
        return 0
    commit = resolve(asked.base) if asked.base else None
    if not asked.base or (commit is None and not Path(asked.base).is_dir()):
        print(f"unchanged: {asked.base or 'BASE'}: neither a commit nor a folder", file=sys.stderr)
        return 2
    try:
        items, declared = select(asked.only), read_declarations(asked.expected)
    except (OSError, ValueError) as error:
        print(f"unchanged: {error}", file=sys.stderr)
        return 2
    cache = Cache(asked.cache, commit, fresh=asked.fresh) if commit else None
    if cache and cache.note:
        print(cache.note, file=sys.stderr)
    top = Path(tempfile.mkdtemp(prefix="unchanged-")).resolve()
    base, tree = Side("base", top / "base"), Side("tree", top / "tree")
    try:
        for side in (base, tree):
            side.checkout.mkdir(parents=True)
        if commit:
            extract(ROOT, commit, base.checkout)
        else:
            snapshot(Path(asked.base).resolve(), base.checkout)
        snapshot(asked.tree.resolve(), tree.checkout)
        before = results_of(base, items, cache, asked.jobs)
        now = results_of(tree, items, None, asked.jobs)
    except Failed as error:
        print(f"unchanged: {error}", file=sys.stderr)
        return 1
    finally:
        if asked.keep:
            print(f"run directories and all else: {top}", file=sys.stderr)
        else:
            rmtree(top, ignore_errors=True)
    verdicts = judge(items, before, now, declared)
    outcome = {
        "base": commit or asked.base,
        "same": all(verdict.same for verdict in verdicts),
        "items": [verdict.as_json() for verdict in verdicts],
    }
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
    print_summary(verdicts, declared, everything=not asked.only)
    counts = f"base {len(base.witnesses)}, tree {len(tree.witnesses)}"
    print(f"processes that imported densekit, all of their own checkout: {counts}")
    print(f"outcome, every difference included: {asked.output}")
    return 0 if outcome["same"] else 1


if __name__ == "__main__":
    sys.exit(main())
