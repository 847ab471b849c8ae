"""What a recipe's data becomes: reader, steps, and the certificate of what they feed."""

from densekit.batching.certificate import BatchCertificate
from densekit.data.annotations import Annotations
from densekit.data.index import load_index
from densekit.data.pixels import ImageProcessor
from densekit.errors import DataError
from densekit.files.json_files import read_json, write_json
from densekit.model.config import model_config
from densekit.runs.layout import CERTIFICATE_FILE, RunDir
from densekit.spec.math import Math
from densekit.spec.roots import Roots
from densekit.text.encode import SampleEncoder
from densekit.text.tokenizers.base import load_tokenizer
from densekit.train.step_dataset import SampleReader


def make_encoder(math: Math, roots: Roots) -> SampleEncoder:
    """The recipe's template over its tokenizer, under its semantics of ids and labels (L1)."""
    return SampleEncoder(
        tokenizer=load_tokenizer(roots.resolve(math.models.tokenizer_folder)),
        template=math.data.template,
        semantics=math.ledger["L1"],
        max_length=math.data.max_length,
    )


def make_reader(math: Math, roots: Roots) -> SampleReader:
    """The reader of a run's samples; DataError when a file of it is missing or wrong."""
    tower = roots.resolve(math.models.vision_tower)
    config = model_config(roots.resolve(math.models.language_model), tower, math.connector)
    annotations = Annotations.load(roots.resolve(math.data.annotations))
    return SampleReader(
        samples=annotations,
        index=load_index(annotations, roots.cache),
        encoder=make_encoder(math, roots),
        image_folder=roots.resolve(math.data.images),
        processor=ImageProcessor.from_pretrained(tower, math.data.image_aspect_ratio),
        image_tokens=config.image_layout.max_tokens,
        semantics=math.ledger["L1"],
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
                f"{path} says {earlier.sha256[:10]}, the data gives {certificate.sha256[:10]}: the "
                "annotation file is not the one this run began with; restore it, or retrain with "
                "--force"
            )
    else:
        write_json(path, certificate.as_json())
    if planned not in (None, certificate.sha256):
        raise DataError(
            f"the plan's certificate is {planned[:10]}, the data gives {certificate.sha256[:10]}: "
            "the annotation file changed since `densekit plan --certify`; run that again"
        )
