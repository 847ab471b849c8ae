"""What was found about models, kept in the cache: a model is inspected once for each of its
configurations, the tensors in its files, and each version of the packages that build it.
"""

import importlib.metadata
from pathlib import Path

import densekit
from densekit.files.hashing import file_sha256, json_sha256
from densekit.files.json_files import optional_object, write_json
from densekit.files.weight_files import read_weight_files
from densekit.runs.connector_weights import connector_weights
from densekit.spec.check import Check, refuse
from densekit.spec.math import MADE_ASSETS, Math
from densekit.spec.model_parts import ModelParts
from densekit.spec.roots import Roots

FOLDER = "model-verdicts"
CONFIGS = ("config.json", "preprocessor_config.json")
PACKAGES = ("torch", "transformers")
"""Beside the kit itself, which need not be installed."""


def stage_parts(math: Math, roots: Roots) -> ModelParts | None:
    """What a run's model is put together from; None when the kit makes the models itself."""
    models = math.models
    parts = (models.language_model, models.vision_tower, models.high_resolution_tower)
    if math.assets and all(part.startswith(MADE_ASSETS) for part in parts if part is not None):
        return None
    second = roots.resolve_optional(models.high_resolution_tower)
    weights = roots.resolve(models.connector).resolve() if models.connector else None
    return ModelParts(
        language_model=roots.resolve(models.language_model).resolve(),
        vision_tower=roots.resolve(models.vision_tower).resolve(),
        high_resolution_tower=second and second.resolve(),
        connector=math.connector,
        connector_weights=weights and connector_weights(weights, roots.cache),
        max_length=math.data.max_length,
        anyres=math.data.anyres,
        positions=math.positions,
    )


def refuse_models(problems: list[str]) -> None:
    """Raises DataError with everything that was found, if anything was."""
    refuse(Check(name="models", state="fail", message=problem) for problem in problems)


def installed_packages() -> str:
    """The versions that a verdict depends on, of this Python; no package is imported."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    kit = {"densekit": densekit.__version__}
    return ", ".join(f"{name} {version}" for name, version in (kit | versions).items())


def known_problems(parts: ModelParts, cache: Path, environment: str) -> list[str] | None:
    """What was found in this environment; None when the model was not inspected there."""
    found = optional_object(_path(parts, cache), remedy="remove it").get(environment)
    return [str(problem) for problem in found] if isinstance(found, list) else None


def keep_problems(parts: ModelParts, cache: Path, environment: str, problems: list[str]) -> None:
    """Keep what was found."""
    path = _path(parts, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = optional_object(path, remedy="remove it")
    write_json(path, {**kept, environment: problems})


def _path(parts: ModelParts, cache: Path) -> Path:
    weights, second = parts.connector_weights, parts.high_resolution_tower
    identity = {
        "configs": [
            optional_object(folder / name)
            for folder in (parts.language_model, parts.vision_tower)
            for name in CONFIGS
        ],
        "tensors": [
            sorted((name, *tensor.entry.shape) for name, tensor in tensors.items())
            for tensors, _ in map(read_weight_files, (parts.language_model, parts.vision_tower))
        ],
        "connector": parts.connector.model_dump(mode="json"),
        "anyres": parts.anyres and parts.anyres.model_dump(mode="json"),
        "connector_weights": None if weights is None else file_sha256(weights),
        "max_length": parts.max_length,
        "positions": parts.positions,
        "folders": [str(parts.language_model), str(parts.vision_tower), str(weights)],
    }
    if second is not None:
        identity["high_resolution_tower"] = [
            str(second),
            *sorted(f"{path.name} {path.stat().st_size}" for path in second.iterdir()),
        ]
    return cache / FOLDER / f"{json_sha256(identity)}.json"
