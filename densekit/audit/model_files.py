"""In what the files of two runs' models differ, as their manifests hashed them: tokenizers,
weights, settings.

Where both folders still hold the files that were hashed, the first tensor that differs is named.
"""

from collections.abc import Iterator
from pathlib import Path

from densekit.audit.diff.differences import NO_EFFECT, Difference
from densekit.audit.run_reader import RecordedRun
from densekit.audit.wording import shown
from densekit.errors import DataError
from densekit.files.hashing import file_sha256
from densekit.files.safetensors_diff import first_tensor_difference
from densekit.runs.manifest import MANIFEST_FILE, ModelFiles

PARTS = ("language_model", "vision_tower", "high_resolution_tower", "tokenizer")
TOKENIZER = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "spiece")
WEIGHTS = (".safetensors", ".bin", ".pt", ".index.json")


def model_differences(a: RecordedRun, b: RecordedRun) -> Iterator[Difference]:
    """Every file of the model folders that differs, and every revision."""
    one, two = _models(a), _models(b)
    for part in [part for part in PARTS if part in one and part in two]:
        first, second = one[part], two[part]
        for name in sorted(first.files.keys() | second.files.keys()):
            hashes = first.files.get(name), second.files.get(name)
            topic = _topic(part, name)
            if hashes[0] != hashes[1] and topic:
                yield _file_difference(a, b, part, name, topic, hashes)
        if first.revision != second.revision:
            yield Difference(
                topic=NO_EFFECT,
                message=f"{part} revision: {first.revision} and {second.revision}",
                evidence=f"{MANIFEST_FILE}, models.{part}.revision",
            )


def model_folder(run: RecordedRun, part: str) -> Path | None:
    """Where the run found a part of its model; None where its files do not say."""
    if run.math is None or run.execution is None:
        return None
    models = run.math.recipe.models
    references = {
        "language_model": models.language_model,
        "vision_tower": models.vision_tower,
        "high_resolution_tower": models.high_resolution_tower,
        "tokenizer": models.tokenizer_folder,
    }
    return run.execution.roots.resolve_optional(references[part])


def _models(run: RecordedRun) -> dict[str, ModelFiles]:
    return run.manifest.models if run.manifest is not None else {}


def _topic(part: str, name: str) -> str | None:
    """What a file of a part's folder decides; None for one that another part answers for.

    A tokenizer often lies in the language model's folder: tokenizer files count there, everything
    else here.
    """
    if name.startswith(TOKENIZER):
        return "tokenizer" if part == "tokenizer" else None
    if part == "tokenizer":
        return None
    if name.endswith(WEIGHTS):
        return "weights"
    if name == "preprocessor_config.json":
        return "pixels" if part == "vision_tower" else None
    return "model" if name == "config.json" else NO_EFFECT


def _file_difference(
    a: RecordedRun,
    b: RecordedRun,
    part: str,
    name: str,
    topic: str,
    hashes: tuple[str | None, str | None],
) -> Difference:
    kind = {"tokenizer": "tokenizer file", "weights": "weight file"}.get(topic, "model file")
    tensor = _tensor(a, b, part, name, hashes) if name.endswith(".safetensors") else ""
    return Difference(
        topic=topic,
        message=f"{kind} {part}/{name} differs: {shown(hashes[0])} and {shown(hashes[1])}{tensor}",
        evidence=f"{MANIFEST_FILE}, models.{part}.files",
    )


def _tensor(
    a: RecordedRun,
    b: RecordedRun,
    part: str,
    name: str,
    hashes: tuple[str | None, str | None],
) -> str:
    """The first tensor that differs, or why it cannot be named."""
    paths = []
    for run, digest in zip((a, b), hashes, strict=True):
        folder = model_folder(run, part)
        try:
            if digest is None or folder is None or file_sha256(folder / name) != digest:
                return "; the tensor cannot be named: the files changed since the runs read them"
        except (OSError, ValueError):
            return "; the tensor cannot be named: the files are no longer there"
        paths.append(folder / name)
    try:
        difference = first_tensor_difference(*paths)
    except (DataError, OSError) as error:
        return f"; {error}"
    return f"; {difference.describe()}" if difference else "; all tensors are equal"
