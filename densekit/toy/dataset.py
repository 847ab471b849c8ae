"""The tiny data set the kit makes itself: coloured shapes, captions and questions that follow from
a seed.

It lets every stage run with no download, and be measured on questions that chance answers one time
in four.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from densekit.errors import DataError, UsageError
from densekit.files.json_files import read_json, write_json
from densekit.files.permissions import follow_umask
from densekit.toy.dialogues import (
    Entry,
    caption_entry,
    dialogue_line,
    held_out_entry,
    question_entry,
    text_entry,
)
from densekit.toy.pictures import BACKGROUNDS, COLOURS, SHAPES, draw, file_name

RECORD = "shapes.json"
# Raised whenever the same arguments would draw or say something else.
FORMAT = 1
TEXT_ONLY_SHARE = 0.15
# Half the questions ask for one of 4 colours, half for one of 4 shapes.
BALANCE = 8


def make_shapes(directory: Path, *, seed: int, stage1: int, stage2: int, held_out: int) -> None:
    """Write the data set into `directory`: `stage1`, `stage2` and `held_out` are numbers of
    entries.

    Written are images/ (the image folder; `image` fields are relative to it), stage1.json,
    stage2.json, held_out.json, text.txt (the training conversations, one per line) and shapes.json
    (arguments and SHA-256 of every file). The directory appears in one rename. A directory that
    already holds exactly this data set is left alone.

    Raises UsageError for numbers that make no data set, DataError when `directory` holds something
    else.
    """
    if seed < 0 or min(stage1, stage2, held_out) < 1 or held_out % BALANCE:
        raise UsageError(
            f"assets: seed {seed}, stage1_samples {stage1}, stage2_samples {stage2}, held_out "
            f"{held_out}: the seed must not be negative, sizes must be at least 1, and held_out "
            f"must be a multiple of {BALANCE} to balance its answers"
        )
    directory = Path(directory).absolute()
    arguments = {
        "format": FORMAT,
        "seed": seed,
        "stage1": stage1,
        "stage2": stage2,
        "held_out": held_out,
    }
    if _is_made(directory, arguments):
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        follow_umask(scratch)
        _write(scratch, seed=seed, stage1=stage1, stage2=stage2, held_out=held_out)
        record = {"arguments": arguments, "sha256": _hashes(scratch)}
        write_json(scratch / RECORD, record)
        try:
            scratch.rename(directory)
        except OSError:
            # Another process may have finished the same data set first.
            if not _is_made(directory, arguments):
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(root: Path, *, seed: int, stage1: int, stage2: int, held_out: int) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    images = root / "images"
    images.mkdir()
    combinations = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    backgrounds = tuple(BACKGROUNDS)
    drawn = 0

    def picture(colour: str, shape: str) -> tuple[str, str]:
        nonlocal drawn
        name, background = file_name(drawn), backgrounds[rng.integers(len(backgrounds))]
        draw(images / name, drawn, colour, shape, background, rng)
        drawn += 1
        return name, background

    captions: list[Entry] = []
    for number in range(stage1):
        # Shuffled block by block: balanced, yet no shape is tied to a file format, which alternates
        # too.
        if number % len(combinations) == 0:
            block = rng.permutation(len(combinations))
        colour, shape = combinations[block[number % len(combinations)]]
        name, background = picture(colour, shape)
        captions.append(caption_entry(f"caption-{number}", name, colour, shape, background, rng))

    text_only = set(rng.permutation(stage2)[: round(stage2 * TEXT_ONLY_SHARE)].tolist())
    questions: list[Entry] = []
    for number in range(stage2):
        if number in text_only:
            questions.append(text_entry(f"text-{number}", rng))
            continue
        colour, shape = combinations[rng.integers(len(combinations))]
        name, _ = picture(colour, shape)
        questions.append(
            question_entry(f"question-{number}", name, colour, shape, tuple(COLOURS), SHAPES, rng)
        )

    evaluation: list[Entry] = []
    for number, question in enumerate(rng.permutation(held_out).tolist()):
        kind = ("colour", "shape")[question % 2]
        asked = question // 2 % 4
        # The property that is not asked for is drawn at random, so that it says nothing about the
        # answer.
        other = int(rng.integers(4))
        colour = tuple(COLOURS)[asked if kind == "colour" else other]
        shape = SHAPES[asked if kind == "shape" else other]
        name, _ = picture(colour, shape)
        answer = colour if kind == "colour" else shape
        evaluation.append(held_out_entry(f"held-out-{number}", name, kind, answer))

    for file, entries in (("stage1", captions), ("stage2", questions), ("held_out", evaluation)):
        text = json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
        (root / f"{file}.json").write_text(text, encoding="utf-8", newline="\n")
    lines = "".join(dialogue_line(entry) + "\n" for entry in [*captions, *questions])
    (root / "text.txt").write_text(lines, encoding="utf-8", newline="\n")


def _hashes(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `root` but the record, by relative path."""
    files = sorted(file for file in root.rglob("*") if file.is_file() and file != root / RECORD)
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def _is_made(directory: Path, arguments: dict[str, int]) -> bool:
    """Return whether `directory` holds this data set; DataError when it holds something else."""
    if not os.path.lexists(directory) or (directory.is_dir() and not any(directory.iterdir())):
        return False
    try:
        record: Any = read_json(directory / RECORD)
    except DataError:
        record = None
    if not isinstance(record, dict) or record.get("arguments") != arguments:
        raise DataError(
            f"{directory}: exists and is not the shapes data set of {arguments}; "
            "name another directory, or remove this one"
        )
    if record.get("sha256") != _hashes(directory):
        raise DataError(
            f"{directory}: files differ from those recorded in {RECORD}; remove the directory"
        )
    return True
