"""The text of a recipe of one's own: what it changes, each with its source, and what it inherits as
comments, so that the sources of the parent hold for all that is not touched.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from densekit.spec.math import Reference, Stage
from densekit.spec.recipe import Recipe

SCALING = "the square root of the batch's factor (AdamW; arXiv 2205.10287)"


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """Training data of one stage; paths from the folder of the recipe, or absolute."""

    annotations: str
    samples: int | None = None
    """Entries, where they were counted."""


@dataclass(frozen=True, kw_only=True)
class OwnParts:
    """What a recipe of one's own puts in the place of its parent's."""

    stage1: OwnData
    stage2: OwnData
    images: str
    language_model: str | None = None
    """None: that of the parent, as for the tower."""
    vision_tower: str | None = None

    def data(self, stage: Stage) -> OwnData:
        """The data of a stage."""
        return self.stage1 if stage == 1 else self.stage2


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """Batch and rates for fewer samples than the parent's."""

    reference: Reference
    factor: float
    """Of the rates."""
    steps: int | None


def recipe_text(
    name: str, stage1: str, parent: Recipe, extends: str, parts: OwnParts, fit: Scaled
) -> str:
    """One stage, `name`; `stage1` is the name of the other, where this is the second."""
    changed: dict[str, str] = {}
    lines = [
        *_head(name, stage1, parent, extends),
        *_data(parts.data(parent.stage), parts.images, parent, changed),
        *_models(parts, parent, changed),
        *_batch(parts.data(parent.stage), parent, fit, changed),
        *_made(parent, changed),
        "",
        "# Where your values are from, for whoever reads a run of it later.",
        "sources:",
        *(f"  {field}: {_quoted(text)}" for field, text in changed.items()),
    ]
    return "\n".join(lines) + "\n"


def _head(name: str, stage1: str, parent: Recipe, extends: str) -> Iterator[str]:
    trained = "the connector alone" if parent.stage == 1 else "connector and language model"
    yield f"# Stage {parent.stage} of a recipe of your own: trains {trained}"
    yield f"# as {extends} does ({parent.title})."
    yield "# What is not written here is inherited. Every value, and where it is from:"
    yield f"#     densekit show {name}.yaml --sources"
    yield "# Then `densekit lint` for this file, `plan` for your GPUs, and `run`."
    yield f"extends: {_quoted(extends)}"
    yield f"title: {_quoted(f'{name}, after {parent.name}')}"
    yield "paper: null    # no row of the paper: no reported score is its target"
    yield "notes: []"
    if parent.stage == 2:
        yield f"needs: {_quoted(stage1)}    # whose connector this stage starts from"


def _data(data: OwnData, images: str, parent: Recipe, changed: dict[str, str]) -> Iterator[str]:
    inherited = parent.data
    changed["data.annotations"] = changed["data.images"] = "our own"
    yield ""
    yield "# Paths begin in the folder of this file. docs/data.md has the forms that are read, and"
    yield "# `densekit data verify` tells all that is wrong with them."
    yield "data:"
    yield f"  annotations: {_quoted(data.annotations)}"
    yield f"  images: {_quoted(images)}"
    if data.samples is None:
        changed["data.samples"] = "not counted yet"
        yield "  samples: null    # not counted yet; a number is checked before every run"
    else:
        changed["data.samples"] = "counted when this file was written"
        yield f"  samples: {data.samples}    # checked before every run"
    if inherited.samples_estimate is not None:
        changed["data.samples_estimate"] = "the parent's is of its own data"
        yield "  samples_estimate: null"
    if inherited.missing != "refuse":
        changed["data.missing"] = "the parent's is of its own data"
        yield "  missing: refuse    # or drop, replace: entries whose image is missing"
    yield f"  # template: {inherited.template}    # the language model's own, in stage 2"
    yield f"  # image_aspect_ratio: {inherited.image_aspect_ratio}"
    yield f"  # max_length: {inherited.max_length}    # tokens, with those of the image"


def _models(parts: OwnParts, parent: Recipe, changed: dict[str, str]) -> Iterator[str]:
    given = {"language_model": parts.language_model, "vision_tower": parts.vision_tower}
    connector = parent.connector.model_dump(mode="json", exclude_defaults=True)
    yield ""
    yield "# Folders in transformers format; `densekit convert` makes safetensors of pickles."
    yield "# A tower with other layers needs a `connector` of its own: hidden_states indices."
    yield "models:" if any(given.values()) else "# models:"
    for key, value in given.items():
        if value is None:
            yield f"#   {key}: {getattr(parent.models, key)}"
        else:
            changed[f"models.{key}"] = "our own"
            yield f"  {key}: {_quoted(value)}"
    yield f"# connector: {json.dumps(connector)}"


def _batch(data: OwnData, parent: Recipe, fit: Scaled, changed: dict[str, str]) -> Iterator[str]:
    reference, before = fit.reference, parent.reference.global_batch_size
    made = f" (steps here: {fit.steps})" if fit.steps is not None else ""
    mark = "# " if fit.factor == 1 else ""
    yield ""
    yield f"# The batch decides the result, on whatever hardware{made}. Of few samples the"
    yield "# paper's batch makes too few steps: halve it then, and multiply the rates by"
    yield f"# {SCALING}."
    yield f"{mark}global_batch_size: {reference.global_batch_size}"
    yield f"{mark}reference:    # fixes order and weights of samples; no hardware is asked for"
    yield f"{mark}  gpus: {reference.gpus}"
    yield f"{mark}  per_device_batch_size: {reference.per_device_batch_size}"
    yield f"{mark}  grad_accum_steps: {reference.grad_accum_steps}"
    yield f"{mark}optimizer:"
    if fit.factor != 1:
        why = f"{before} halved to {reference.global_batch_size}, for {data.samples} samples"
        changed["global_batch_size"] = changed["reference"] = why
    for key in ("learning_rate", "connector_learning_rate", "tower_learning_rate"):
        if (rate := getattr(parent.optimizer, key)) is not None:
            yield f"{mark}  {key}: {rate * fit.factor:.2e}"
            if fit.factor != 1:
                changed[f"optimizer.{key}"] = f"{rate:.2e} of the parent, times {SCALING}"
    yield f"#   epochs: {parent.optimizer.epochs}"


def _made(parent: Recipe, changed: dict[str, str]) -> Iterator[str]:
    """What a parent that makes its own data and questions must not hand on."""
    if parent.assets is not None:
        yield ""
        yield "assets: null    # the parent makes its data and models; yours are given"
        changed["assets"] = "our own data and models"
    if parent.probe is not None:
        yield "probe: null    # the parent's held-out questions are about its own data"
        changed["probe"] = "none"


def _quoted(text: str) -> str:
    """A text as YAML, whatever is in it."""
    return json.dumps(text, ensure_ascii=False)
