"""Pickled weights of a published folder into safetensors: `convert_folder`.

It runs in a process of the trainer's environment, which launchers start: the driver has no torch.
From the driver it is

    launcher.convert(ConversionRequest(folder=folder, to=None), execution)

(launch/launchers/base.py), which returns the ConversionReport that the process prints; `densekit
fetch` calls it after a download, `densekit convert` by itself. A folder that is converted already
is recognised, so calling it again costs hashing the files.

One pickle becomes one safetensors file, one at a time: host RAM holds at most the tensors of the
largest pickle (those of files that torch.save wrote since 1.6 are mapped from the disk). Each
written file is read back and compared with what was read, bit for bit.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from densekit.errors import DataError, UsageError
from densekit.exchange.pickled import Pickled, read_pickled, same_memory
from densekit.exchange.staging import STAGING, check_room, publish, staging
from densekit.files import durable
from densekit.files.hashing import file_sha256
from densekit.files.json_files import json_bytes, optional_object
from densekit.files.pickle_files import CONVERSION, OTHERS, PickledWeights, pickled_weights
from densekit.files.weight_files import INDEX, few
from densekit.model.tensor_files import same_bits, write_tensors
from densekit.runs.manifest import folder_commits
from densekit.spec.conversion import Conversion, ConversionReport, read_conversion
from densekit.spec.saved_file import SavedFile

CONFIG = "config.json"
HEADS = ("lm_head.weight", "embed_out.weight")
"""How an output embedding's name ends, which config.json ties to the input embedding."""
NOT_COPIED = ("*.bin.index.json", "*.safetensors", "*.safetensors.index.json")
Say = Callable[[str], None]


def convert_folder(
    folder: Path, to: Path | None = None, *, say: Say = lambda line: None
) -> ConversionReport:
    """Convert the pickled weights of `folder`, beside them or into the folder `to`, with copies of
    everything else there. `say` is given a line about each file.

    Raises DataError for weights that are not whole, that need code to be read or that cannot be
    stored bit for bit, and where the disk has no room; UsageError for a folder that is not there or
    has safetensors of its own. Nothing half-written stays.
    """
    target = folder if to is None else to
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: name the folder of a model")
    earlier = read_conversion(target) if target.is_dir() else None
    if earlier is not None and _whole(earlier, folder, target):
        if (target / STAGING).exists():  # killed behind the last rename
            with staging(target):
                pass
        return ConversionReport(conversion=earlier, already=True)
    if earlier is None:
        _check_target(folder, target)
    weights = pickled_weights(folder)
    with staging(target) as stage:
        conversion = _Conversion(folder, stage, weights, say).run()
        if to is not None:
            _copy_others(folder, stage)
        try:
            durable.write_bytes(stage / CONVERSION, json_bytes(conversion.as_json()))
            publish(
                stage,
                target,
                order=[*conversion.files],
                replaced=[*earlier.files] if earlier is not None else [],
            )
        except OSError as error:
            raise DataError(f"{target} cannot be written: {error.strerror}") from None
    return ConversionReport(conversion=conversion, already=False)


class _Conversion:
    """One conversion on its way: what was found so far."""

    def __init__(self, folder: Path, stage: Path, weights: PickledWeights, say: Say) -> None:
        self.folder, self.stage, self.weights, self.say = folder, stage, weights, say
        self.ties = optional_object(folder / CONFIG).get("tie_word_embeddings") is True
        self.weight_map: dict[str, str] = {}
        self.sizes = 0
        self.originals: dict[str, SavedFile] = {}
        self.files: dict[str, SavedFile] = {}
        self.tied: dict[str, str] = {}
        self.left_out: dict[str, tuple[str, ...]] = {}
        self.renamed: dict[str, str] = {}

    def run(self) -> Conversion:
        """Convert each pickle in turn, then write the index where there are several."""
        paths = [self.folder / name for name in self.weights.files]
        check_room(self.stage, sum(path.stat().st_size for path in paths))
        for path, made in zip(paths, self.weights.files.values(), strict=True):
            self._convert(path, made)
        if len(paths) > 1:
            self._write_index()
        return Conversion(
            originals=self.originals,
            files=self.files,
            tensors=len(self.weight_map),
            tied=self.tied,
            left_out=self.left_out,
            renamed=self.renamed,
            torch=torch.__version__,
        )

    def _convert(self, path: Path, made: str) -> None:
        self.originals[path.name] = SavedFile(sha256=file_sha256(path), bytes=path.stat().st_size)
        pickled = read_pickled(path)
        self._check_names(path, pickled)
        tied = self._tied(pickled.tensors)
        kept = {name: value for name, value in pickled.tensors.items() if name not in tied}
        file = self.stage / made
        try:
            written = write_tensors(kept, file, metadata={"format": "pt", **tied})
            durable.wrote(file)
        except OSError as error:
            raise DataError(f"{file} cannot be written: {error.strerror}") from None
        compare(kept, file, path)
        self.files[made] = SavedFile(sha256=written.sha256, bytes=written.bytes)
        self.weight_map |= dict.fromkeys(kept, made)
        self.sizes += sum(value.numel() * value.element_size() for value in kept.values())
        self.tied |= tied
        if pickled.left_out:
            self.left_out[path.name] = pickled.left_out
        if pickled.prefix:
            self.renamed[path.name] = pickled.prefix
        once = f"; {few([*tied])} kept once, as {few([*tied.values()])}" if tied else ""
        besides = f"; left out, no weights: {few(pickled.left_out)}" if pickled.left_out else ""
        self.say(
            f"{path.name}: {len(kept)} tensors, {written.bytes / 1e9:.2f} GB in {made}, equal bit "
            f"for bit{once}{besides}"
        )

    def _check_names(self, path: Path, pickled: Pickled) -> None:
        """Compare a pickle's names with the index and with those of the pickles before it."""
        if twice := [name for name in pickled.tensors if name in self.weight_map]:
            raise DataError(
                f"{path} holds {few(twice)}, and an earlier file of the folder too: which one "
                "counts is not said; download the folder again"
            )
        if self.weights.tensors is None:
            return
        if lacking := [
            name for name in self.weights.tensors[path.name] if name not in pickled.tensors
        ]:
            raise DataError(
                f"{path} lacks {few(lacking)}, which the index says are in it: download the folder "
                "again"
            )

    def _tied(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Output embeddings that are the input embedding, by its name. Other tensors that share
        memory are each written: a model that does not tie them needs both.
        """
        tied: dict[str, str] = {}
        for names in same_memory(tensors) if self.ties else ():
            heads = [name for name in names if name.endswith(HEADS)]
            if others := [name for name in names if name not in heads]:
                tied |= dict.fromkeys(heads, others[0])
        return tied

    def _write_index(self) -> None:
        path = self.stage / INDEX
        value = {"metadata": {"total_size": self.sizes}, "weight_map": self.weight_map}
        durable.write_bytes(path, json_bytes(value))
        self.files[INDEX] = SavedFile(sha256=file_sha256(path), bytes=path.stat().st_size)


def compare(tensors: Mapping[str, Tensor], file: Path, source: Path) -> None:
    """Raise DataError unless a written file holds exactly these tensors, bit for bit."""
    try:
        with safe_open(file, "pt") as opened:
            names = set(opened.keys())
            differ = sorted(names ^ tensors.keys())
            for name in sorted(names & tensors.keys()):
                back, value = opened.get_tensor(name), tensors[name]
                same = (back.dtype, back.shape) == (value.dtype, value.shape)
                if not same or not same_bits(back, value):
                    differ.append(name)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} cannot be read back: {error}; convert again") from None
    if differ:
        raise DataError(
            f"{few(differ)} in {file} are not what {source} holds: the disk or its memory does not "
            "keep what is written; convert again, or to another disk with --to"
        )


def _whole(conversion: Conversion, folder: Path, target: Path) -> bool:
    """Whether everything that a record names is there with its hash. Pickles may have been removed
    since; new ones, or others, make it a conversion of something else.
    """
    for place, files, needed in (
        (target, conversion.files, True),
        (folder, conversion.originals, False),
    ):
        for name, saved in files.items():
            path = place / name
            if not path.is_file():
                if needed:
                    return False
                continue
            if path.stat().st_size != saved.bytes or file_sha256(path) != saved.sha256:
                return False
    return True


def _check_target(folder: Path, target: Path) -> None:
    """Refuse to write where something else is. Raises UsageError."""
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError(f"--to {target} is a file: name a folder, new or empty")
    if target.samefile(folder):
        if theirs := sorted(path.name for path in folder.glob("*.safetensors*")):
            raise UsageError(
                f"{folder} holds {few(theirs)} of its own: nothing is converted; remove them if "
                "they are damaged, or convert into another folder with --to"
            )
    elif any(path.name != STAGING for path in target.iterdir()):
        raise UsageError(f"--to {target} is not empty: name a folder, new or empty")


def _copy_others(folder: Path, stage: Path) -> None:
    """Copy what is no weight: configuration, tokenizer, texts; and note the commit, which the
    folder's place or its download's notes say.
    """
    for path in sorted(folder.iterdir()):
        weights = any(path.match(pattern) for pattern in (*OTHERS, *NOT_COPIED))
        if path.is_file() and not weights and path.name != CONVERSION:
            shutil.copyfile(path, stage / path.name)
    commits = folder_commits(folder)
    if len(commits) == 1:
        (stage / ".revision").write_text(f"{commits.pop()}\n", encoding="utf-8")
