"""Times and weighs the index of an annotation file of the real size: 665,298 entries, 985 MB.

A file like stage 2's (and one like stage 1's, of 558,128 captions), with a tree of as many images
(links to a few), is made in --folder and removed at the end. Then, each in a process of its own:

* json.load, and the build of the index: CPU seconds and peak memory;
* opening with the index there: wall seconds, median of --repeat, and that every entry and image
  name is what json.load gives;
* two ranks at once, each with two data workers forked from it, that read steps as training does
  (text by a cheap stand-in for the tokenizer, no pixels): memory that is each process's own (USS,
  /proc/self/smaps_rollup) above that of a process that imported the same and opened nothing;
* preflight of both stages (models are not there: their checks end at once) and `plan --certify`,
  first and again.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ENTRIES, CAPTIONS, TEXT_ONLY_SHARE = 665_298, 558_128, 40_688 / 665_298
LINKS = 50_000
"""Names of one file: a file system admits 65,000."""
STAGES = ("vicuna7b_clip_stage1", "vicuna7b_clip_stage2")
FILES = {
    STAGES[0]: ("LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", "LLaVA-Pretrain/images"),
    STAGES[1]: ("LLaVA-Instruct-150K/llava_v1_5_mix665k.json", "."),
}
WORDS = """the a of in on with and is what how many people standing behind large wooden table near
window bright morning photograph describe detail left right colour small animal street building
answer using single word phrase region visible object background caf\u00e9 number""".split()  # noqa: SIM905


def uss_bytes() -> int:
    """Memory that this process shares with no other."""
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    found = re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB$", rollup, re.MULTILINE)
    return sum(map(int, found)) * 1024


def peak_bytes() -> int:
    """The highest resident size of this process so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def cpu_seconds() -> float:
    """CPU time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# --- what is read ---------------------------------------------------------------------------------


def conversations(count: int) -> Iterator[tuple[str | None, list[tuple[str, str]]]]:
    """(image, turns) of entries like those of llava_v1_5_mix665k.json: 1.48 kB each on average."""
    generator = random.Random(0)
    pool = [" ".join(generator.choices(WORDS, k=generator.randint(4, 56))) for _ in range(20_000)]
    for number in range(count):
        turns = []
        for turn in range(generator.choice((1, 1, 2, 3, 5, 7, 9))):
            question = generator.choice(pool)[:120]
            tag = "<image>\n" if turn == 0 and number % 16 else ""
            turns.append((tag + question + "?", generator.choice(pool) + "."))
        image = f"coco/train2017/{number:012d}.jpg" if number % 16 else None
        yield image, turns


def captions(count: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(image, turns) of entries like those of blip_laion_cc_sbu_558k.json: 0.25 kB each."""
    generator = random.Random(1)
    for number in range(count):
        caption = " ".join(generator.choices(WORDS, k=12))
        yield f"{number % 660:05d}/{number:09d}.jpg", [("Describe the image.\n<image>", caption)]


def make_file(path: Path, entries: Iterator[Any]) -> list[str]:
    """Write an annotation file; returns its images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = []
    with path.open("w", encoding="utf-8") as file:
        for number, (image, turns) in enumerate(entries):
            named = {} if image is None else {"image": image}
            images += [image] if image else []
            values = [
                {"from": speaker, "value": text}
                for turn in turns
                for speaker, text in zip(("human", "gpt"), turn, strict=True)
            ]
            entry = {"id": f"{number:012d}", **named, "conversations": values}
            file.write(("[" if number == 0 else ",\n ") + json.dumps(entry, ensure_ascii=False))
        file.write("]")
    return images


def make_images(folder: Path, names: list[str]) -> None:
    """Links to a few JPEGs, under all names."""
    from PIL import Image

    original = folder / "original.jpg"
    for number, name in enumerate(names):
        path = folder / name
        if number % LINKS == 0:
            folder.mkdir(parents=True, exist_ok=True)
            original.unlink(missing_ok=True)
            Image.new("RGB", (640, 480), (number % 255, 90, 40)).save(original)
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        os.link(original, path)


# --- processes that are measured ------------------------------------------------------------------


def read_by_json(path: Path, cache: Path) -> dict[str, Any]:
    """json.load."""
    begun = cpu_seconds()
    with path.open(encoding="utf-8") as file:
        entries = json.load(file)
    return {
        "entries": len(entries),
        "cpu_seconds": cpu_seconds() - begun,
        "peak_bytes": peak_bytes(),
    }


def opened(path: Path, cache: Path) -> dict[str, Any]:
    """Open; the first time builds the index."""
    from densekit.data.annotations import Annotations

    before, begun, cpu = uss_bytes(), time.perf_counter(), cpu_seconds()
    annotations = Annotations.load(path, cache=cache)
    return {
        "entries": len(annotations),
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": cpu_seconds() - cpu,
        "peak_bytes": peak_bytes(),
        "uss_bytes": uss_bytes() - before,
    }


def compared(path: Path, cache: Path) -> dict[str, Any]:
    """Every entry and image name beside json.load's."""
    from densekit.data.annotations import Annotations

    annotations = Annotations.load(path, cache=cache)
    with path.open(encoding="utf-8") as file:
        entries = json.load(file)
    begun = cpu_seconds()
    different = sum(
        sample.entry != entry for sample, entry in zip(annotations, entries, strict=True)
    )
    seconds = cpu_seconds() - begun
    names = {index: entry["image"] for index, entry in enumerate(entries) if "image" in entry}
    return {
        "entries": len(entries),
        "different": different + (dict(annotations.images()) != names),
        "reads_per_cpu_second": round(len(entries) / seconds),
    }


def rank(path: Path, cache: Path, *, empty: bool = False) -> dict[str, Any]:
    """A rank and its two workers over the first steps of stage 2."""
    from text_only import Words, text_reader
    from torch.utils.data import DataLoader, Dataset

    from densekit.batching.run_order import RunOrder
    from densekit.data.annotations import Annotations
    from densekit.recipes.load import load_recipe
    from densekit.train.step_dataset import StepDataset

    class Nothing(Dataset[int]):
        """What a worker weighs that reads nothing."""

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> int:
            return uss_bytes()

    if empty:
        own = uss_bytes()
        workers = list(DataLoader(Nothing(), batch_size=None, num_workers=2))
        return {"uss_bytes": own, "worker_uss_bytes": max(workers)}

    class Weighed(Dataset[int]):
        """Reads a step, says what its process then holds of its own."""

        def __init__(self, steps: StepDataset) -> None:
            self.steps = steps

        def __len__(self) -> int:
            return min(len(self.steps), 400)

        def __getitem__(self, index: int) -> int:
            batch = self.steps[index]
            if isinstance(batch, Exception):
                raise batch
            return uss_bytes()

    clock = time.perf_counter()
    math = load_recipe(STAGES[1]).math()
    annotations = Annotations.load(path, cache=cache)
    reader = text_reader(annotations, Words())
    steps = RunOrder(math, reader.index.modality_lengths).steps()
    dataset = StepDataset(
        reader, steps, loss_semantics="faithful", rank=0, world_size=8, micro_batch_size=16
    )
    ready, own = time.perf_counter() - clock, uss_bytes()
    workers = list(DataLoader(Weighed(dataset), batch_size=None, num_workers=2))
    return {
        "ready_seconds": ready,
        "uss_bytes": max(own, uss_bytes()),
        "worker_uss_bytes": max(workers),
        "steps_read": len(workers),
    }


def checked(path: Path, cache: Path) -> dict[str, Any]:
    """Preflight of both stages and a certificate; what it says of annotations and images."""
    from densekit.launch.preflight import preflight
    from densekit.planner.certificates import make_certificate
    from densekit.recipes.load import load_recipe
    from densekit.spec.roots import Roots

    roots = Roots(data=path.parent.parent, models=path.parent / "none", cache=cache)
    seconds, cpu, states = {}, {}, {}
    for name in STAGES:
        recipe = load_recipe(name, ["data.samples=null"])
        begun, cpu_begun = time.perf_counter(), cpu_seconds()
        found = preflight(recipe, roots)
        seconds[name] = time.perf_counter() - begun
        cpu[name] = cpu_seconds() - cpu_begun
        for check in found.checks:
            if check.name.endswith(("annotations", "images")):
                states[check.name] = check.state
    recipe = load_recipe(STAGES[1], ["data.samples=null"])
    begun, cpu_begun = time.perf_counter(), cpu_seconds()
    make_certificate(recipe, roots)
    certify, cpu["certify"] = time.perf_counter() - begun, cpu_seconds() - cpu_begun
    return {
        "preflight_seconds": seconds,
        "certify_seconds": certify,
        "cpu_seconds": cpu,
        "checks": states,
        "peak_bytes": peak_bytes(),
    }


PARTS = {
    "json": read_by_json,
    "open": opened,
    "compare": compared,
    "rank": rank,
    "import": lambda path, cache: rank(path, cache, empty=True),
    "check": checked,
}


def start(part: str, path: Path, cache: Path) -> "subprocess.Popen[str]":
    """One of PARTS in a process of its own."""
    command = [sys.executable, __file__, "--part", part, str(path), str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What it printed."""
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args!r} ended with {process.returncode}")
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def measure(folder: Path, entries: int, repeat: int) -> dict[str, Any]:
    """All figures, from files made below `folder`."""
    data, cache = folder / "data", folder / "cache"
    paths = {name: data / file for name, (file, _) in FILES.items()}
    few = max(1, round(CAPTIONS * entries / ENTRIES))
    images = make_file(paths[STAGES[0]], captions(few))
    make_images(data / FILES[STAGES[0]][1], images)
    images = make_file(paths[STAGES[1]], conversations(entries))
    make_images(data / FILES[STAGES[1]][1], images)
    path = paths[STAGES[1]]
    time.sleep(3)  # a file that was written just now is hashed each time

    def run(part: str) -> dict[str, Any]:
        return result(start(part, path, cache))

    found: dict[str, Any] = {"entries": entries, "bytes": path.stat().st_size}
    found["json"] = run("json")
    found["build"] = run("open")
    opens = [run("open") for _ in range(repeat)]
    found["open"] = {
        "seconds": statistics.median(each["seconds"] for each in opens),
        "slowest": max(each["seconds"] for each in opens),
        "uss_bytes": max(each["uss_bytes"] for each in opens),
    }
    found["index_bytes"] = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    found["compare"] = run("compare")
    alone = run("import")
    ranks = [start("rank", path, cache) for _ in range(2)]
    found["ranks"] = [result(each) for each in ranks]
    for each in found["ranks"]:
        for name in ("uss_bytes", "worker_uss_bytes"):
            each[name] -= alone[name]
    found["check"] = [run("check") for _ in range(2)]
    return found


def main() -> None:
    """Print all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/densekit-index"))
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        part, path, cache = given.part
        print(json.dumps(PARTS[part](Path(path), Path(cache))))
        return
    if min(given.entries, given.repeat) < 1:
        parser.error("--entries and --repeat are at least 1")
    try:
        given.folder.mkdir(parents=True)
    except OSError as error:
        parser.error(
            f"--folder {given.folder}: {error.strerror}; give one that can be made: it is removed "
            "at the end, with what is in it"
        )
    try:
        print(json.dumps(measure(given.folder, given.entries, given.repeat), indent=1))
    finally:
        shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
