"""What a recipe's data becomes: reader, steps, and the certificate of what they feed."""

from pathlib import Path
from typing import Any

from densekit.batching.certificate import BatchCertificate
from densekit.batching.steps import Step
from densekit.data.annotations import Annotations
from densekit.data.pixels import ImageProcessor
from densekit.errors import DataError
from densekit.files.json_files import read_json, write_json
from densekit.model.weights import model_config
from densekit.runs.layout import CERTIFICATE_FILE, RunDir
from densekit.spec.roots import Roots
from densekit.text.encode import SampleEncoder
from densekit.text.tokenizers.base import load_tokenizer
from densekit.train.step_dataset import SampleReader, StepDataset


def tokenizer_folder(recipe: dict[str, Any], roots: Roots) -> Path:
    """Where the recipe's tokenizer is: its own folder, or the language model's."""
    models = recipe["models"]
    return roots.resolve(models["tokenizer"] or models["language_model"])


def make_encoder(recipe: dict[str, Any], roots: Roots) -> SampleEncoder:
    """The recipe's template over its tokenizer, under its semantics of ids and labels (ledger L1)."""
    return SampleEncoder(
        tokenizer=load_tokenizer(tokenizer_folder(recipe, roots)),
        template=recipe["data"]["template"],
        semantics=recipe["ledger"]["L1"],
        max_length=recipe["data"]["max_length"],
    )


def make_reader(recipe: dict[str, Any], roots: Roots) -> tuple[SampleReader, Annotations]:
    """The reader of a recipe's samples; DataError when a file of it is missing or wrong."""
    data, models = recipe["data"], recipe["models"]
    tower = roots.resolve(models["vision_tower"])
    config = model_config(roots.resolve(models["language_model"]), tower, recipe["connector"])
    annotations = Annotations.load(roots.resolve(data["annotations"]))
    reader = SampleReader(
        samples=annotations,
        encoder=make_encoder(recipe, roots),
        image_folder=roots.resolve(data["images"]),
        processor=ImageProcessor.from_pretrained(tower, data["image_aspect_ratio"]),
        image_tokens=config.image_tokens,
    )
    return reader, annotations


def make_dataset(
    recipe: dict[str, Any],
    reader: SampleReader,
    steps: list[Step],
    execution: dict[str, Any],
    *,
    rank: int,
    world_size: int,
) -> StepDataset:
    """Every optimiser step of the run, as one rank of `execution` reads it."""
    return StepDataset(
        reader,
        steps,
        loss_semantics=recipe["ledger"]["U8"],
        rank=rank,
        world_size=world_size,
        micro_batch_size=execution["micro_batch_size"],
    )


def settle_certificate(run: RunDir, certificate: BatchCertificate, planned: str | None) -> None:
    """Write certificate.json, or compare with the one that is there; DataError when data or plan
    say otherwise.

    `planned`: the hash the driver's plan stated, if it had one.
    """
    path = run.path / CERTIFICATE_FILE
    if path.exists():
        earlier = BatchCertificate.from_json(read_json(path))
        if earlier != certificate:
            raise DataError(
                f"{path} says {earlier.sha256[:10]}, the data gives {certificate.sha256[:10]}: the annotation file is "
                "not the one this run began with; put it back, or train anew with --force"
            )
    else:
        write_json(path, certificate.as_json())
    if planned not in (None, certificate.sha256):
        raise DataError(
            f"the plan's certificate is {planned[:10]}, the data gives {certificate.sha256[:10]}: the annotation file "
            "changed since `densekit plan --certify`; make the certificate anew"
        )
