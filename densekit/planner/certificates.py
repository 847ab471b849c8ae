"""Batch certificates of recipes: computed from the annotation file, cached, found again without
reading it.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from densekit.batching.certificate import BatchCertificate
from densekit.batching.run_length import RunLength
from densekit.errors import DataError
from densekit.files.hashing import json_sha256
from densekit.files.json_files import read_json, write_json
from densekit.planner.lengths import LENGTHS_FOLDER, counted
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


def cached_certificate(recipe: Recipe, roots: Roots) -> BatchCertificate | None:
    """Return the certificate that `make_certificate` kept for this recipe and this annotation file,
    if any.

    The file is not read: path, size and time of its last change stand for it. A kept certificate
    that is damaged counts as none; a line on standard error says so.
    """
    path = _cached_at(recipe, roots)
    if path is None or not path.is_file() or recipe.data.missing != "refuse":
        # What is dropped or replaced is known once the images have been looked at.
        return None
    try:
        certificate = BatchCertificate.from_json(read_json(path))
    except DataError as error:
        print(f"{path}: ignored: {error}", file=sys.stderr)
        return None
    # Another recipe may have accepted a file that this one refuses.
    return certificate if recipe.data.samples in (None, certificate.num_samples) else None


def make_certificate(recipe: Recipe, roots: Roots) -> BatchCertificate:
    """Compute the certificate of everything the recipe feeds, and cache it under
    `<cache>/certificates`.

    Raises DataError when the annotation file is missing, wrong or not the one the recipe states.
    """
    # Imported here because they load numpy, tokenizers and images, which a plan without --certify
    # does not need.
    from densekit.batching.run_order import RunOrder
    from densekit.data.annotations import Annotations
    from densekit.data.images import find_images
    from densekit.data.index import SampleIndex
    from densekit.data.missing import choose_entries

    path = roots.resolve(recipe.data.annotations)
    # Before reading: a file that changes meanwhile is not found under it again.
    cached_at = _cached_at(recipe, roots)
    if cached_at is None:
        makes = recipe.makes(recipe.data.annotations)
        advice = (
            f"`densekit run {recipe.name}` makes it first"
            if makes
            else f"`densekit fetch {recipe.name}` gets it, --data-dir says where it is"
        )
        raise DataError(
            f"data.annotations: {path} does not exist, and a certificate is made from it; {advice}"
        )
    annotations = Annotations.load(
        path, cache=roots.cache, require_tag=recipe.data.template == "plain"
    )
    if recipe.data.samples not in (None, len(annotations)):
        raise DataError(
            f"{path} has {len(annotations)} entries, recipe {recipe.name} expects "
            f"{recipe.data.samples}: it is not the published file; to train on it, add "
            "--set data.samples=null"
        )
    index = SampleIndex.of(annotations)
    if recipe.data.missing != "refuse":
        images = find_images(annotations, roots.resolve(recipe.data.images), roots.cache)
        data, seed = recipe.math().data, recipe.seed
        chosen = choose_entries(data, images, count=len(annotations), seed=seed)
        index = index.take(chosen.entries)
    certificate = RunOrder(recipe.math(), index.modality_lengths).certificate(index.sample_ids())
    lengths = counted(index.modality_lengths, recipe.data.template)
    lengths_at = roots.cache / LENGTHS_FOLDER / cached_at.name
    for path, value in ((cached_at, certificate.as_json()), (lengths_at, lengths)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, value)
    return certificate


def cached_lengths(recipe: Recipe, roots: Roots) -> Path | None:
    """Where the lengths of the recipe's samples are, once a certificate was made from its
    annotation file.
    """
    path = _cached_at(recipe, roots)
    return None if path is None else roots.cache / LENGTHS_FOLDER / path.name


def _cached_at(recipe: Recipe, roots: Roots) -> Path | None:
    """Where a certificate is cached: named after all it depends on; None without an annotation
    file.
    """
    annotations = roots.resolve(recipe.data.annotations).resolve()
    if not annotations.is_file():
        return None
    state = annotations.stat()
    key = {
        "reference": recipe.reference.model_dump(),
        "seed": recipe.seed,
        "grouping": recipe.data.group_by_modality_length,
        **asdict(RunLength.of(recipe.math())),
        "annotations": {
            "path": str(annotations),
            "size": state.st_size,
            "mtime_ns": state.st_mtime_ns,
        },
    }
    return roots.cache / "certificates" / f"{json_sha256(key)}.json"
