"""In what the files of two runs' models differ, as their manifests hashed them: tokenizers,
weights, settings.

Where both folders still hold the files that were hashed, the first tensor that differs is named.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from densekit.audit.diff.differences import Difference
from densekit.audit.diff.divergence import shown
from densekit.audit.run_reader import Evidence, section
from densekit.errors import DataError
from densekit.files.hashing import file_sha256
from densekit.files.tensors import first_tensor_difference
from densekit.runs.manifest import MANIFEST_FILE
from densekit.spec.roots import Roots

PARTS = ("language_model", "vision_tower", "tokenizer")
TOKENIZER = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "spiece")
WEIGHTS = (".safetensors", ".bin", ".pt", ".index.json")


def model_differences(a: Evidence, b: Evidence) -> Iterator[Difference]:
    """Every file of the model folders that differs, and every revision."""
    one, two = _models(a), _models(b)
    for part in [part for part in PARTS if part in one and part in two]:
        first, second = (_files(run, models, part) for run, models in ((a, one), (b, two)))
        for name in sorted(first.keys() | second.keys()):
            topic = _topic(part, name)
            if first.get(name) != second.get(name) and topic:
                yield _file_difference(a, b, part, name, topic, (first.get(name), second.get(name)))
        revisions = [models[part].get("revision") for models in (one, two)]
        if revisions[0] != revisions[1]:
            words = f"{part} revision: {revisions[0]} and {revisions[1]}"
            yield Difference(
                topic="label", words=words, evidence=f"{MANIFEST_FILE}, models.{part}.revision"
            )


def model_folder(recipe: dict[str, Any], roots: Roots, part: str) -> Path | None:
    """Where a part of a recipe's model lies; the tokenizer's own folder or the language model's.
    None: not named.
    """
    models = recipe.get("models")
    reference = models.get(part) if isinstance(models, dict) else None
    if reference is None and part == "tokenizer" and isinstance(models, dict):
        reference = models.get("language_model")
    return roots.resolve(reference) if isinstance(reference, str) else None


def _models(run: Evidence) -> dict[str, Any]:
    path = run.path / MANIFEST_FILE
    models = section(run.manifest, "models", path)
    return {part: section(models, part, path) for part in models}


def _files(run: Evidence, models: dict[str, Any], part: str) -> dict[str, Any]:
    return section(models[part], "files", run.path / MANIFEST_FILE)


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
    return "model" if name == "config.json" else "label"


def _file_difference(
    a: Evidence,
    b: Evidence,
    part: str,
    name: str,
    topic: str,
    hashes: tuple[str | None, str | None],
) -> Difference:
    what = {"tokenizer": "the tokenizer file", "weights": "a weight file"}.get(
        topic, "a model file"
    )
    place = (
        f"{name} differs (models.tokenizer)" if topic == "tokenizer" else f"differs: {part}/{name}"
    )
    words = f"{what} {place}: {shown(hashes[0])} and {shown(hashes[1])}"
    tensor = _tensor(a, b, part, name, hashes) if name.endswith(".safetensors") else ""
    return Difference(
        topic=topic, words=f"{words}{tensor}", evidence=f"{MANIFEST_FILE}, models.{part}.files"
    )


def _tensor(
    a: Evidence, b: Evidence, part: str, name: str, hashes: tuple[str | None, str | None]
) -> str:
    """The first tensor that differs, or why it cannot be named."""
    paths = []
    for run, digest in zip((a, b), hashes, strict=True):
        folder = model_folder(run.recipe, run.roots, part) if run.execution else None
        try:
            if digest is None or folder is None or file_sha256(folder / name) != digest:
                return "; the tensor cannot be named: the files are no longer what both runs read"
        except (OSError, ValueError):
            return "; the tensor cannot be named: the files are no longer there"
        paths.append(folder / name)
    try:
        difference = first_tensor_difference(*paths)
    except (DataError, OSError) as error:
        return f"; {error}"
    return f"; {difference.words()}" if difference else "; all tensors are equal"
