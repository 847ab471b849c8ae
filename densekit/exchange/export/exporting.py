"""A trained model into another format: `export_model`.

Weights go file by file, within one tensor by tensor, and are cast in pieces, so that host RAM needs
room for less than one file of them, the adapters, tower and projector: benchmarks/merge_memory.py
measures that against the figure of `--dry-run`. Then the source and, in a fresh process, the export
answer stored prompts, and are compared: what does not agree is removed again.
"""

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from densekit.errors import DataError, UsageError
from densekit.exchange.export.answers import PROMPTS, answers_of, stored_prompts
from densekit.exchange.export.llava_hf import write_llava_hf
from densekit.exchange.export.official import write_official
from densekit.exchange.export.own import write_own
from densekit.exchange.export.tensors import LanguageModel
from densekit.exchange.loading import load_model
from densekit.exchange.new_folder import check_new, new_folder
from densekit.exchange.official.tensors import EMBEDDING
from densekit.exchange.source import Source, open_source
from densekit.files.permissions import follow_umask
from densekit.spec.exchange import ExportRequest

TOLERANCE = {None: 5e-5, "fp32": 5e-5, "fp16": 0.02, "bf16": 0.2}
"""Largest difference of a logit; in the narrow types of the largest logit's size, where weights are
rounded.
"""
GIB = 1 << 30
Say = Callable[[str], None]


def export_model(request: ExportRequest, *, say: Say = lambda line: None) -> list[str]:
    """Export one model; returns what was done, in lines. Raises UsageError for options that do not
    go together, DataError for a model that the format cannot express, and for an export that does
    not answer as its source.
    """
    source = open_source(request.source)
    merge = request.merge_lora
    if merge and source.adapter is None:
        raise UsageError(f"--merge-lora: {request.source} has no LoRA adapters; omit it")
    if source.adapter is not None and request.format != "official" and not merge:
        raise UsageError(
            f"--format {request.format} holds a whole model, and {request.source} is LoRA "
            "adapters: add --merge-lora"
        )
    if EMBEDDING not in source.shapes:
        raise DataError(
            f"{request.source}: the language model (model type {source.config.model_type}) has no "
            f"{EMBEDDING}: only models of Llama's kind are exported (llama, mistral, qwen2)"
        )
    if request.dry_run:
        return _plan(source, request)
    with new_folder(request.to) as stage:
        if request.format == "llava-hf":
            write_llava_hf(source, stage, dtype=request.dtype)
        elif request.format == "official":
            write_official(source, stage, merge=merge, dtype=request.dtype)
        else:
            write_own(source, stage, dtype=request.dtype)
        follow_umask(stage)
        say(f"{request.to}: written; comparing its answers with those of {request.source}")
        lines = _check(source, request, stage)
    size = sum(path.stat().st_size for path in request.to.rglob("*") if path.is_file())
    first = f"{request.to}: {request.format}, {size / 1e9:.2f} GB"
    return [first, *lines, *_hints(request, source)]


def _plan(source: Source, request: ExportRequest) -> list[str]:
    """What would be written, from the headers alone."""
    check_new(request.to)
    language_model = LanguageModel(source, merge=request.merge_lora, dtype=request.dtype)
    whole = request.format != "official" or source.trains == "full" or request.merge_lora
    lines, largest, total = [], 0, 0
    for part in language_model.files() if whole else []:
        read = part.file.path.stat().st_size
        written = sum(layout.bytes for layout in part.layouts.values())
        largest, total = max(largest, read), total + written
        lines.append(
            f"{part.file.path.name}: {len(part.layouts)} tensors, {read / 1e9:.2f} GB read, "
            f"{written / 1e9:.2f} GB written"
        )
    adapter = source.adapter.file.path.stat().st_size if source.adapter is not None else 0
    what = f"{total / 1e9:.2f} GB of the language model"
    if not whole:
        what = f"the connector{' and the adapters' if source.adapter else ''}, no language model,"
    lines.append(
        f"{request.to}: {what} would be written; host RAM, at most: "
        f"{largest / GIB:.1f} GiB (the largest file) + {adapter / GIB:.2f} GiB (adapters) + 1 GiB; "
        f"then {_loaded(source) / GIB:.1f} GiB to compare answers, which is left out where less "
        "is free"
    )
    return lines


def _check(source: Source, request: ExportRequest, folder: Path) -> list[str]:
    """Compare the answers of source and export. Raises DataError where they differ."""
    if (free := _available()) < (needed := _loaded(source)):
        return [
            f"not checked: comparing answers in fp32 takes {needed / GIB:.0f} GiB of host RAM, "
            f"{free / GIB:.0f} GiB are free; check it on a larger machine before it is used"
        ]
    values = stored_prompts(source)
    model, _ = load_model(source.path)
    ours = answers_of(model, values)
    del model
    theirs = _fresh(source, request, folder, values)
    worst, size, same = 0.0, 0.0, True
    for number in range(len(PROMPTS)):
        logits, others = ours[f"{number}/logits"], theirs[f"{number}/logits"]
        if logits.shape != others.shape:
            raise DataError(
                f"the export has {len(others)} tokens and the model {len(logits)}: this is a bug "
                "of densekit; nothing was kept"
            )
        worst = max(worst, (logits - others).abs().max().item())
        size = max(size, logits.abs().max().item())
        same &= torch.equal(ours[f"{number}/generated"], theirs[f"{number}/generated"])
    narrow = request.dtype in ("fp16", "bf16")
    tolerance = TOLERANCE[request.dtype] * (size if narrow else 1)
    if worst > tolerance or not (same or narrow):
        raise DataError(
            f"the export does not answer as {source.path}: logits up to {worst:.2g} apart "
            f"(tolerance {tolerance:.2g}), greedy ids {'equal' if same else 'differ'}; nothing was "
            "kept"
        )
    return [
        f"checked in a fresh process: last logits of {len(PROMPTS)} prompts within {worst:.1e} "
        f"(tolerance {tolerance:.1e}), greedy ids {'equal' if same else 'differ (rounded weights)'}"
    ]


def _fresh(
    source: Source, request: ExportRequest, folder: Path, values: dict[str, Tensor]
) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory(prefix="densekit-export-") as made:
        prompts, out = Path(made) / "prompts.safetensors", Path(made) / "answers.safetensors"
        save_file({name: value.contiguous() for name, value in values.items()}, prompts)
        base = source.files[0][0].path.parent
        done = subprocess.run(
            [sys.executable, "-m", "densekit.exchange.export.answers", request.format]
            + [str(path) for path in (folder, prompts, out, base, source.tower)],
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason"])[-1]
            raise DataError(f"the export cannot be read again: {last}; nothing was kept")
        return load_file(out)


def _hints(request: ExportRequest, source: Source) -> list[str]:
    if request.format != "official":
        return []
    adapters = source.adapter is not None and not request.merge_lora
    wanted = ("llava", "lora") if adapters else ("llava",)
    if all(word in request.to.name for word in wanted):
        return []
    words = " and ".join(f"`{word}`" for word in wanted)
    return [f"the official loader goes by the folder's name: give it one with {words} in it"]


def _loaded(source: Source) -> int:
    """Bytes of host RAM that the model takes in fp32, with 2 GiB for what else a process holds."""
    return 4 * sum(math.prod(shape) for _, shape in source.shapes.values()) + 2 * GIB


def _available() -> int:
    """Bytes of host RAM that are free for a process."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0
