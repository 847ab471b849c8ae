"""Every case under a folder of recorded numbers, and what the folder does not hold."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from densekit.errors import DataError
from densekit.parity.anyres import HELPERS, check_forward, check_helpers
from densekit.parity.compare import Quantities
from densekit.parity.evaluation import RECORDINGS, check_recording
from densekit.parity.exchange import check_exchange, exchange_folders
from densekit.parity.lora import check_lora, check_target_modules
from densekit.parity.order import check_sampler
from densekit.parity.padding import check_batch_extra
from densekit.parity.preprocess import check_image_preprocess
from densekit.parity.probes import check_probes
from densekit.parity.recorded_tokens import TOKENS_FILE
from densekit.parity.stage import check_stage
from densekit.parity.tokens import check_tokenization
from densekit.parity.variant import RECORD, check_variant

UNSUPPORTED: tuple[str, ...] = ()
"""Folders of a kind that densekit does not compute: none."""
SCORERS: Literal["scorers"] = "scorers"
INPUTS = ("data", "models", "tokenizer_llama2", "tokenizer_llama3")
Check = Callable[[Quantities], None]
Kind = Literal[
    "stage 1",
    "stage 2",
    "LoRA runs",
    "LoRA modules",
    "sampler",
    "tokenization",
    "preprocessing",
    "padding",
    "probes",
    "checkpoint",
    "scorers",
    "variant",
    "anyres",
]
"""What a set of recordings may hold."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case that was found; `kind` is None when nobody knows what it is."""

    name: str
    kind: Kind | None
    check: Check


def find_cases(root: Path) -> Iterator[Case]:
    """Every case in a folder laid out as the recorded set; unknown folders are cases that fail.

    Raises DataError when the folder does not exist.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder of recorded numbers")
    if is_exchange(root):
        for name, folder in exchange_folders(root):
            check = partial(check_exchange, root, folder)
            yield Case(name=name, kind="checkpoint", check=check)
        return
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name in (*UNSUPPORTED, *INPUTS) or folder.name.startswith("."):
            continue
        yield from _cases_of(root, folder)
    for path in sorted(root.glob("*.json")):
        if path.stem in RECORDINGS:
            yield Case(name=path.stem, kind=SCORERS, check=partial(check_recording, path))


def is_exchange(root: Path) -> bool:
    """Whether a set is one of official checkpoint folders."""
    return (root / "given").is_dir()


def unsupported(root: Path) -> list[str]:
    """Folders of a kind that densekit does not implement yet."""
    return [name for name in UNSUPPORTED if (root / name).is_dir()]


def not_recorded(root: Path, cases: list[Case]) -> list[str]:
    """The kinds that a set of recorded trainings does not hold, and `tokenizers` when it holds
    recorded ids instead; of a set of scorers alone, the files that it does not hold. Sets of
    checkpoints and of variants hold nothing else.
    """
    if is_exchange(root):
        return []
    found = {case.kind for case in cases}
    if found == {SCORERS}:
        return sorted(set(RECORDINGS) - {case.name for case in cases})
    if found == {"variant"}:
        return []
    found |= {SCORERS, "checkpoint", "variant"}
    missing: list[str] = [kind for kind in get_args(Kind) if kind not in found]
    return [*missing, "tokenizers"] if (root / TOKENS_FILE).is_file() else missing


def _cases_of(root: Path, folder: Path) -> Iterator[Case]:
    name = folder.name
    if name == "sampler":
        yield Case(name=name, kind="sampler", check=partial(check_sampler, root))
    elif name == "tokenization":
        for path in sorted(folder.glob("*.json")):
            if path.name != "conversations.json":
                check = partial(check_tokenization, root, path)
                yield Case(name=f"{name}/{path.stem}", kind="tokenization", check=check)
    elif name == "lora":
        yield Case(name=name, kind="LoRA modules", check=partial(check_target_modules, root))
    elif name == "anyres":
        yield from _anyres_cases(root, folder)
    elif name == "extra":
        files = (path for path in folder.iterdir() if path.suffix in (".json", ".npz"))
        for stem in sorted({path.stem for path in files}):
            yield _extra_case(root, folder, stem)
    else:
        yield from _training_cases(root, folder)


def _anyres_cases(root: Path, folder: Path) -> Iterator[Case]:
    if (folder / HELPERS).is_file():
        check = partial(check_helpers, folder / HELPERS)
        yield Case(name="anyres/helpers", kind="anyres", check=check)
    stems = {path.name.partition(".")[0] for path in folder.glob("forward_*")}
    for stem in sorted(stems):
        check = partial(check_forward, root, stem)
        yield Case(name=f"anyres/{stem}", kind="anyres", check=check)


def _extra_case(root: Path, folder: Path, stem: str) -> Case:
    name = f"extra/{stem}"
    if stem == "image_preprocess":
        return Case(name=name, kind="preprocessing", check=partial(check_image_preprocess, root))
    if stem == "probes":
        return Case(name=name, kind="probes", check=partial(check_probes, root))
    if stem.endswith("_extra"):
        check = partial(check_batch_extra, root, folder / f"{stem}.json")
        return Case(name=name, kind="padding", check=check)
    return _unknown(name, folder / stem)


def _training_cases(root: Path, folder: Path) -> Iterator[Case]:
    names = {path.name for path in folder.iterdir()}
    if RECORD in names:
        check_one = partial(check_variant, root, folder)
        yield Case(name=folder.name, kind="variant", check=check_one)
        return
    stages: list[tuple[int, Kind]] = [(1, "stage 1"), (2, "stage 2")]
    found = [
        Case(
            name=f"{folder.name}/stage{stage}",
            kind=kind,
            check=partial(check_stage, root, folder, stage),
        )
        for stage, kind in stages
        if any(name.startswith(f"stage{stage}") for name in names)
    ]
    found += [
        Case(
            name=f"{folder.name}/{stem}",
            kind="LoRA runs",
            check=partial(check_lora, root, folder / f"{stem}.json"),
        )
        for stem in _lora_stems(names)
    ]
    yield from found or [_unknown(folder.name, folder)]


def _lora_stems(names: set[str]) -> list[str]:
    """Every lora*.json; a lora* file without its JSON is a case too, which fails for want of it."""
    stems = {name.partition(".")[0] for name in names if name.startswith("lora")}
    bases = {name.removesuffix(".json") for name in names if name.endswith(".json")} & stems
    alone = {stem for stem in stems if not any(stem.startswith(base) for base in bases)}
    return sorted(bases | ({"lora"} if alone else set()))


def _unknown(name: str, path: Path) -> Case:
    def check(_: Quantities) -> None:
        raise DataError(f"{path} is not a known kind of recording")

    return Case(name=name, kind=None, check=check)
