"""What is checked before a run directory exists: files, annotations, images, tokenizer, model
folders.
"""

from pathlib import Path

from densekit.data.annotations import Annotations, check_images
from densekit.errors import DataError
from densekit.files.hashing import file_sha256
from densekit.files.json_files import read_object
from densekit.launch.answers import check_answers_fit
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from densekit.text.tokenizers.base import load_tokenizer


def preflight(recipe: Recipe, roots: Roots) -> dict[str, str]:
    """Check everything a run of `recipe` reads, short of decoding images and loading weights.

    Returns the SHA-256 of the files that belong to the run's identity (annotations, connector
    weights). What the kit makes itself (recipes with `assets`) is not there yet and not checked.
    Raises DataError naming the first problem.
    """
    models, data = recipe.models, recipe.data
    if not recipe.makes(models.language_model):
        _check_model(roots.resolve(models.language_model), "models.language_model")
    if not recipe.makes(models.vision_tower):
        tower = roots.resolve(models.vision_tower)
        _check_model(tower, "models.vision_tower")
        if not (tower / "preprocessor_config.json").is_file():
            raise DataError(
                f"models.vision_tower: {tower}/preprocessor_config.json is missing; copy it from "
                "the tower's repository"
            )
    tokenizer = models.tokenizer or models.language_model
    if not recipe.makes(tokenizer):
        load_tokenizer(roots.resolve(tokenizer))
    inputs: dict[str, str] = {}
    if models.connector:
        weights = roots.resolve(models.connector)
        if not weights.is_file():
            raise DataError(f"models.connector: {weights} does not exist; give projector weights")
        inputs["connector"] = file_sha256(weights)
    if not recipe.makes(data.annotations):
        path = roots.resolve(data.annotations)
        annotations = Annotations.load(path, require_tag=data.template == "plain")
        inputs["annotations"] = annotations.sha256
        if data.samples not in (None, len(annotations)):
            raise DataError(
                f"{path} has {len(annotations)} entries, recipe {recipe.name} expects "
                f"{data.samples}: it is not the "
                "published file (a recipe with `samples: null` under `data` trains on it all the "
                "same)"
            )
        check_answers_fit(recipe, annotations, roots)
        if not recipe.makes(data.images):
            check_images(annotations, roots.resolve(data.images))
    if recipe.probe and not recipe.makes(recipe.probe.questions):
        questions = Annotations.load(roots.resolve(recipe.probe.questions))
        for sample in questions:
            if sample.image is None or len(sample.conversations) < 2:
                raise DataError(
                    f"{questions.path}: entry {sample.index}: a held-out question needs an image "
                    "and an answer"
                )
        if not recipe.makes(recipe.probe.images):
            check_images(questions, roots.resolve(recipe.probe.images))
    return inputs


def _check_model(folder: Path, field: str) -> None:
    if not (folder / "config.json").is_file():
        raise DataError(
            f"{field}: no model in {folder} (config.json is missing); download it there in "
            "transformers format"
        )
    read_object(folder / "config.json")
    if not any(folder.glob("*.safetensors")):
        raise DataError(
            f"{field}: {folder} holds no .safetensors weights; convert or download them (no pickle "
            "is read)"
        )
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        parts = read_object(index).get("weight_map", {})
        missing = sorted({name for name in parts.values() if not (folder / name).is_file()})
        if missing:
            raise DataError(f"{field}: {folder} lacks {', '.join(missing)}; finish the download")
