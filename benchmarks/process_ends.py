"""How often a run of two processes ends badly although everything is written (docs/faults.md, C19).

Each run is stopped at its first step and then resumed, so that it ends twice: preempted (75), and
complete (0). An end counts as bad with any other exit code, and where the driver had to say that
the trainer ended badly after the run was complete.

    python benchmarks/process_ends.py --ends 200
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SETTINGS = (
    "assets.stage1_samples=64",
    "assets.stage2_samples=48",
    "assets.held_out=16",
    "assets.language_model_steps=3",
    "data.samples=null",
)
PREEMPTED, COMPLETE = 75, 0
LIMIT_S = 600.0


def main() -> None:
    """Run until there were so many ends; exit code 1 if one was bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ends", type=int, default=200, help="ends of two-process runs")
    parser.add_argument("--zero-stage", type=int, default=0, choices=(0, 2, 3))
    asked = parser.parse_args()
    ends: Counter[int] = Counter()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range((asked.ends + 1) // 2):
            place = Path(folder, str(number))
            place.mkdir()
            for wanted in (PREEMPTED, COMPLETE):
                code, said = run(place, asked.zero_stage, stop=wanted == PREEMPTED)
                ends[code] += 1
                if code != wanted or "the trainer then ended" in said:
                    bad += 1
                    print(f"run {number}: exit code {code}, {wanted} expected\n{said}", flush=True)
            if ends.total() % 20 == 0:
                print(f"{ends.total()} ends, {bad} bad", flush=True)
    counted = ", ".join(f"{count} with exit code {code}" for code, count in sorted(ends.items()))
    print(f"{sum(ends.values())} ends of two-process runs: {counted}; bad: {bad}")
    raise SystemExit(bool(bad))


def run(folder: Path, zero_stage: int, *, stop: bool) -> tuple[int, str]:
    """One `densekit run` on two processes, stopped at its first step or not; its exit code, and
    what it printed. The models and data beside `folder` are made once.
    """
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    places = ["--runs-dir", str(folder / "runs"), "--cache-dir", str(folder.parent / "cache")]
    how = ["--gpus", "2", "--device", "cpu", "--zero-stage", str(zero_stage)]
    command = [sys.executable, "-m", "densekit", "run", "tiny_stage1", *how, *sets, *places]
    with (folder / "printed").open("w+", encoding="utf-8") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + LIMIT_S
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            for started in folder.glob("runs/*/attempts/0001/launch.json") if stop else ():
                run_dir = started.parents[2]
                if not any((run_dir / name).exists() for name in ("checkpoints", "results.json")):
                    (run_dir / "stop").touch()
        if process.poll() is None:
            process.kill()
        code = process.wait()
        printed.seek(0)
        return code, printed.read()


if __name__ == "__main__":
    main()
