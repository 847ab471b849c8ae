"""Find every case under a folder of recorded numbers, run it, and report."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from densekit.errors import DataError
from densekit.parity.compare import Quantities, run_case
from densekit.parity.extra import check_batch_extra, check_image_preprocess, check_probes
from densekit.parity.lora import check_lora, check_target_modules
from densekit.parity.order import check_sampler
from densekit.parity.stage import check_stage
from densekit.parity.tokens import check_tokenization
from densekit.runs.progress import Progress

UNSUPPORTED = ("anyres",)  # until AnyRes is built
INPUTS = ("data", "models", "tokenizer_llama2", "tokenizer_llama3")
Check = Callable[[Quantities], None]


def find_cases(root: Path) -> Iterator[tuple[str, Check]]:
    """Name and check of every case in a folder laid out as the recorded set; unknown folders are
    cases that fail.

    Raises DataError when the folder does not exist.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder of recorded numbers")
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name in UNSUPPORTED or folder.name in INPUTS or folder.name.startswith("."):
            continue
        yield from _cases_of(root, folder)


def _cases_of(root: Path, folder: Path) -> Iterator[tuple[str, Check]]:
    name = folder.name
    if name == "sampler":
        yield name, partial(check_sampler, root)
    elif name == "tokenization":
        records = sorted(
            path for path in folder.glob("*.json") if path.name != "conversations.json"
        )
        for path in records:
            yield f"{name}/{path.stem}", partial(check_tokenization, root, path)
    elif name == "lora":
        yield name, partial(check_target_modules, root)
    elif name == "extra":
        yield from _extra_cases(root, folder)
    else:
        yield from _training_cases(root, folder)


def _extra_cases(root: Path, folder: Path) -> Iterator[tuple[str, Check]]:
    for stem in sorted(
        {path.stem for path in folder.iterdir() if path.suffix in (".json", ".npz")}
    ):
        check: Check
        if stem == "image_preprocess":
            check = partial(check_image_preprocess, root)
        elif stem == "probes":
            check = partial(check_probes, root)
        elif stem.endswith("_extra"):
            check = partial(check_batch_extra, root, folder / f"{stem}.json")
        else:
            check = _unknown(folder / stem)
        yield f"extra/{stem}", check


def _training_cases(root: Path, folder: Path) -> Iterator[tuple[str, Check]]:
    names = {path.name for path in folder.iterdir()}
    stages = [stage for stage in (1, 2) if any(name.startswith(f"stage{stage}") for name in names)]
    for stage in stages:
        yield f"{folder.name}/stage{stage}", partial(check_stage, root, folder, stage)
    stems = {name.split(".")[0] for name in names if name.startswith("lora")}
    bases = {stem for stem in stems if not stem.endswith(("_init", "_final"))} or {"lora"} & {
        s[:4] for s in stems
    }
    for stem in sorted(bases):
        yield f"{folder.name}/{stem}", partial(check_lora, root, folder / f"{stem}.json")
    if not stages and not bases:
        yield folder.name, _unknown(folder)


def _unknown(path: Path) -> Check:
    def check(_: Quantities) -> None:
        raise DataError(f"{path} is not a known kind of recording")

    return check


def run_parity(root: Path, *, progress: bool) -> dict[str, Any]:
    """Run every case; the result is what `densekit parity --json` prints."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)  # the recorded models are tiny: more threads only wait for each other
    cases = list(find_cases(root))
    if not cases:
        raise DataError(
            f"{root} holds no recorded case: expected folders such as clip_dci, sampler or tokenization"
        )
    shown = Progress("parity", len(cases), enabled=progress)
    results = {}
    for number, (name, check) in enumerate(cases):
        results[name] = run_case(check)
        shown.update(number + 1)
    ok = all(quantity["ok"] for case in results.values() for quantity in case.values())
    unsupported = [name for name in UNSUPPORTED if (root / name).is_dir()]
    return {"cases": results, "unsupported": unsupported, "ok": ok}


def print_report(result: dict[str, Any]) -> None:
    """One line per case and quantity: largest difference, tolerance, verdict."""
    for name, quantities in result["cases"].items():
        for quantity, values in quantities.items():
            difference = values["max_abs_diff"]
            shown = "-" if difference is None else f"{difference:.3g}"
            verdict = "ok" if values["ok"] else "FAIL"
            line = f"{name:44} {quantity:32} {shown:>10} (tolerance {values['tolerance']:.3g})  {verdict}"
            print(line + (f"  {values['error']}" if "error" in values else ""))
    for name in result["unsupported"]:
        print(f"{name:44} not supported yet")
    print("parity holds" if result["ok"] else "parity does not hold")
