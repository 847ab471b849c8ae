"""What this machine's GPU does, in the environment at hand; installs nothing.

`python -m gpu` (with the repository and benchmarks/ in PYTHONPATH; `make gpu` sets it) runs in
parts, each in a process of its own with a limit, so that one that fails leaves the others:

environment  versions, what is missing and what is done instead
parity       the recorded cases of tests/golden (on the CPU, with this torch and transformers)
kernels      every attention kernel that imports: compared with SDPA, and timed
devices      both stages and LoRA at tiny size: the same losses on this device as on the CPU
stage1, lora, full   a training step of the 7B shape: seconds of data and compute, MFU, peak memory
             beside the plan's, and a profile: the kernels that take most, and the gaps
stock        the same three beside stock transformers: padded, and padding-free

On a CPU everything runs at tiny size. The results are one JSON object; `--out` writes it, and a
table for docs, into a folder. Exit code 1 when a part failed or was not run.
"""

import argparse
import contextlib
import datetime
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densekit.parity.report import Report

ROOT = Path(__file__).resolve().parents[2]
BUDGET = 520
"""Seconds for all parts: a GPU machine is often lent for ten minutes."""
LIMITS = {
    "environment": 90,
    "parity": 240,
    "kernels": 120,
    "devices": 120,
    "stage1": 120,
    "lora": 120,
    "full": 120,
    "stock": 200,
}
SIZES = {"cpu": "tiny", "cuda": "7b"}
STEPS = {"cpu": 1, "cuda": 4}


def run_part(name: str, device: str) -> dict[str, Any]:
    """One part, in this process."""
    if name == "environment":
        from gpu.environment import environment

        return environment(device)
    if name == "parity":
        from densekit.parity.report import run_parity

        return _of_parity(run_parity(ROOT / "tests" / "golden", progress=False))
    if name == "kernels":
        return _kernels(device)
    if name.startswith("devices-"):
        from gpu.devices import losses_on

        return losses_on(name.removeprefix("devices-"))
    if name == "stock":
        from gpu.stock import measure_stock

        return measure_stock(SIZES[device], device, STEPS[device])
    from gpu.steps import measure_step

    return measure_step(name, SIZES[device], device, STEPS[device])


def _of_parity(report: "Report") -> dict[str, Any]:
    return {"ok": report.ok, "cases": len(report.cases), "failed": report.failing}


def _kernels(device: str) -> dict[str, Any]:
    """benchmarks/attention.py at the sizes of a language model, or tiny ones."""
    import torch

    shape = ["--samples", "3", "--longest", "40", "--heads", "4", "--kv-heads", "2"]
    arguments = [*shape, "--head-dim", "16", "--dtype", "fp32", "--steps", "1"]
    if device == "cuda":
        dtype = "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
        arguments = ["--samples", "16", "--longest", "1024", "--dtype", dtype, "--steps", "10"]
    command = [sys.executable, str(ROOT / "benchmarks" / "attention.py"), "--device", device]
    done = subprocess.run(
        [*command, "--json", *arguments], capture_output=True, text=True, check=False
    )
    if not done.stdout.strip().startswith("{"):
        return {"ok": False, "error": done.stderr[-1500:]}
    return {"ok": done.returncode == 0, **json.loads(done.stdout)}


def measure(name: str, device: str, seconds: float) -> dict[str, Any]:
    """One part, ended after `seconds`; `devices` is two, compared."""
    if name != "devices":
        return run_in_process(name, device, seconds)
    from gpu.devices import compare

    places = dict.fromkeys((device, "cpu"))
    limit = seconds / len(places)
    halves = [run_in_process(f"devices-{place}", device, limit) for place in places]
    broken = [half for half in halves if "stages" not in half]
    return broken[0] if broken else compare(halves[0], halves[-1])


def run_in_process(name: str, device: str, seconds: float) -> dict[str, Any]:
    """A part in a process of its own, ended after `seconds`."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "result.json"
        command = [sys.executable, "-m", "gpu", "--device", device, "--part", name]
        try:
            done = subprocess.run(
                [*command, "--result", str(place)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"ok": False, "error": f"not finished within {seconds:.0f} s"}
        if not place.is_file():
            said = done.stdout.strip()[-1500:]
            return {"ok": False, "error": f"exit code {done.returncode}: {said}"}
        result: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return {**result, "part_seconds": round(time.monotonic() - begun, 1)}


def run_all(
    device: str, names: list[str], say: Callable[[str], None], keep: Callable[[dict[str, Any]], Any]
) -> dict[str, Any]:
    """Every part that there is time for. What is there after each of them is kept: a lent machine
    may end at any moment.
    """
    begun = time.monotonic()
    parts: dict[str, dict[str, Any]] = {}
    for name in names:
        left = BUDGET - (time.monotonic() - begun)
        if left < 10:
            parts[name] = {"ok": False, "error": "not run: no time was left"}
        else:
            parts[name] = measure(name, device, min(left, LIMITS[name]))
        say(line(name, parts[name]))
        result = {
            "ok": all(part["ok"] for part in parts.values()) and len(parts) == len(names),
            "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            "device": device,
            "seconds": round(time.monotonic() - begun, 1),
            "parts": parts,
        }
        keep(result)
    return result


def line(name: str, part: dict[str, Any]) -> str:
    """A part in one line."""
    if "error" in part:
        return f"{name:12} FAIL  {' '.join(part['error'].split())[-300:]}"
    mark = "ok  " if part["ok"] else "FAIL"
    if name == "environment":
        told = f"{part['device']}, torch {part['packages'].get('torch')}"
        missing = [*part["missing"], *(f"{key} ({why})" for key, why in part["instead"].items())]
        told += f"; missing: {', '.join(missing)}" if missing else ""
    elif name == "parity":
        told = f"{part['cases'] - len(part['failed'])} of {part['cases']} cases hold"
    elif name == "kernels":
        ratios = ", ".join(f"{kernel} {ratio:.2f}" for kernel, ratio in part["ratio"].items())
        told = f"seconds relative to SDPA: {ratios}"
    elif name == "devices":
        told = ", ".join(
            f"{what} {stage['relative_difference']:.1e}" for what, stage in part["stages"].items()
        )
        told = f"largest relative difference of losses: {told}"
    elif name == "stock":
        told = "; ".join(_beside(what, stage) for what, stage in part["stages"].items())
    else:
        told = f"{part['step_seconds']} s/step (waiting for data {part['data_seconds']} s), "
        told += f"{part['tokens_per_second']:.0f} tokens/s"
        if "mfu" in part:
            told += f", MFU {part['mfu']:.1%}, peak {part['peak_allocated_gib']} GiB"
            told += f" (planned {part['planned_allocated_gib']})"
        told += f"; {part['execution']}, {part['layers']} layers"
        told += "".join(f"\n{'':18}{row}" for row in profile_lines(part["profile"]))
    return f"{name:12} {mark}  {told}"


def _beside(what: str, stage: dict[str, Any]) -> str:
    """A stage's step relative to both baselines."""
    ratios = ", ".join(
        f"{ratio:.2f} of {name.replace('_', '-')} ({stage['attention'][name]})"
        for name, ratio in stage["time_ratio"].items()
    )
    mfu = ", ".join(f"{name} {share:.1%}" for name, share in stage.get("mfu", {}).items())
    return f"{what} {ratios}" + (f", MFU {mfu}" if mfu else "")


def profile_lines(profile: dict[str, Any]) -> list[str]:
    """A profile for the page: kernels by their time, and when nothing ran."""
    lines = [
        f"{row['share']:6.1%} {row['ms']:9.2f} ms {row['calls']:6} x  {row['name'][:70]}"
        for row in profile["top"]
    ]
    longest = "; ".join(
        f"{gap['ms']} ms before {gap['before']}" for gap in profile["longest_gaps"][:1]
    )
    told = f"busy {profile['busy_share']:.1%}, {profile['gaps']} gaps of {profile['gap_ms']} ms"
    return [*lines, f"{told} in all" + (f", the longest {longest}" if longest else "")]


def device_name(device: str) -> str:
    """The GPU's name, or "cpu"."""
    if device == "cpu":
        return device
    import torch

    return torch.cuda.get_device_name()


def write(result: dict[str, Any], folder: Path) -> Path:
    """gpu_<hardware>_<date>.json, and the same as a page."""
    folder.mkdir(parents=True, exist_ok=True)
    found = result["parts"].get("environment", {}).get("device") or device_name(result["device"])
    hardware = re.sub(r"[^a-z0-9]+", "-", found.lower()).strip("-")
    path = folder / f"gpu_{hardware}_{result['date']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    lines = [line(name, part) for name, part in result["parts"].items()]
    page = [f"# {found}, {result['date']}", "", "```", *lines, "```", ""]
    path.with_suffix(".md").write_text("\n".join(page), encoding="utf-8")
    return path


def main() -> int:
    """Run the parts, print a line for each, and the JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=tuple(SIZES), help="default: cuda where torch sees one")
    parser.add_argument("--parts", nargs="+", choices=tuple(LIMITS), default=list(LIMITS))
    parser.add_argument("--out", type=Path, help="write JSON and a page into this folder")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = arguments.device
    if device is None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    if arguments.part:
        result = run_part(arguments.part, device)
        arguments.result.write_text(json.dumps(result), encoding="utf-8")
        return 0
    with contextlib.redirect_stdout(sys.stderr if arguments.json else sys.stdout):
        out: Path | None = arguments.out
        result = run_all(
            device,
            arguments.parts,
            lambda text: print(text, flush=True),
            lambda result: out and write(result, out),
        )
        if out:
            print(f"written to {out}")
    if arguments.json:
        print(json.dumps(result, indent=1))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
