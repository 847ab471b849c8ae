"""What a recipe's data becomes: reader, steps, and the certificate of what they feed."""

from densekit.batching.certificate import BatchCertificate
from densekit.data.annotations import Annotations
from densekit.data.image_tokens import ImageTokens
from densekit.data.images import find_images
from densekit.data.index import SampleIndex
from densekit.data.missing import Chosen, choose_entries
from densekit.data.pixels import ImageProcessor
from densekit.data.token_counts import TokenCounts, counting_key
from densekit.errors import DataError
from densekit.files.hashing import check_seal, file_sha256
from densekit.files.json_files import read_json, read_object, write_json
from densekit.model.config import model_config
from densekit.runs.layout import CERTIFICATE_FILE, MISSING_FILE, RunDir
from densekit.runs.manifest import MANIFEST_FILE, Manifest
from densekit.spec.math import Math
from densekit.spec.part import read_part
from densekit.spec.roots import Roots
from densekit.text.encode import SampleEncoder
from densekit.text.tokenizers.base import load_tokenizer
from densekit.train.step_dataset import SampleReader

UNREADABLE = "put back a copy of the file, or remove it: then nothing is compared with it"


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
    anyres = math.data.anyres
    config = model_config(
        roots.resolve(math.models.language_model),
        tower,
        math.connector,
        anyres=anyres,
        high_resolution_tower=roots.resolve_optional(math.models.high_resolution_tower),
    )
    annotations = Annotations.load(roots.resolve(math.data.annotations), cache=roots.cache)
    index, chosen = SampleIndex.of(annotations), None
    if math.data.missing != "refuse":
        images = find_images(annotations, roots.resolve(math.data.images), roots.cache)
        chosen = choose_entries(math.data, images, count=len(annotations), seed=math.seed)
        annotations = annotations.take(chosen.entries)
        index = index.take(chosen.entries)
    encoder, layout = make_encoder(math, roots), config.image_layout
    key = counting_key(
        annotations_sha256=annotations.sha256,
        tokenizer=roots.resolve(math.models.tokenizer_folder),
        template=math.data.template,
        semantics=encoder.semantics,
        max_length=encoder.max_length,
        image_tokens=layout.max_tokens,
        sizes=ImageTokens(layout=layout, folder=roots.resolve(math.data.images)).sizes,
    )
    return SampleReader(
        samples=annotations,
        index=index,
        chosen=chosen,
        counts=TokenCounts.open(roots.cache, key, len(annotations.entries)),
        encoder=encoder,
        image_folder=roots.resolve(math.data.images),
        processor=ImageProcessor.from_pretrained(
            tower, math.data.image_aspect_ratio, anyres, mining=math.connector.mining
        ),
        layout=layout,
        semantics=math.ledger["L1"],
    )


def settle_missing(run: RunDir, chosen: Chosen | None) -> None:
    """Write missing.json, the entries that a run drops or replaces. DataError when they are not
    those that the run was made for.
    """
    if chosen is None:
        return
    if run.math.inputs.get("missing") != chosen.sha256:
        raise DataError(
            f"{run.path}: {chosen.describe()}, and they are not those that were when the run was "
            "made: restore the image folder, or retrain (`densekit run` makes another run)"
        )
    write_json(run.path / MISSING_FILE, chosen.as_json())
    if chosen.bad:
        print(f"{run.name}: {chosen.describe()}: {run.path / MISSING_FILE}", flush=True)


def check_inputs(run: RunDir, roots: Roots, annotations_sha256: str) -> None:
    """Raise DataError unless the files that belong to the run's identity are those it was made for:
    they may have changed since, while it waited in a queue or was interrupted.
    """
    math = run.math
    found = {"annotations": (math.recipe.data.annotations, annotations_sha256)}
    if math.recipe.models.connector is not None:
        connector = math.recipe.models.connector
        found["connector"] = (connector, file_sha256(roots.resolve(connector)))
    for name, (reference, sha256) in found.items():
        expected = math.inputs.get(name, sha256)
        if sha256 != expected:
            raise DataError(
                f"{roots.resolve(reference)} is not the file that {run.path} was made for: its "
                f"SHA-256 is {sha256[:10]}, math.json says {expected[:10]} (inputs.{name}); put "
                f"that file back, or train on this one: `densekit run {run.name}` makes another "
                "run of it"
            )


def check_earlier_inputs(run: RunDir, manifest: Manifest) -> None:
    """Raise DataError unless an attempt reads the data and model files that the one before it read,
    whose manifest is still there.
    """
    path = run.path / MANIFEST_FILE
    if not path.exists():
        return
    value = read_object(path, remedy=UNREADABLE)
    if not check_seal(value):
        raise DataError(f"{path} was edited: its hash does not fit its content; {UNREADABLE}")
    earlier = read_part(Manifest, value, source=path, remedy=UNREADABLE)
    made = run.math.recipe.assets is not None  # a model that was made again is another file
    before, now = (_files_read(each, models=not made) for each in (earlier, manifest))
    odd = sorted(name for name in before | now if before.get(name) != now.get(name))
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise DataError(
            f"{run.path} was begun with other files: {odd[0]}{more} changed since the last "
            "attempt; put the originals back, or retrain from step 0 with "
            f"`densekit run {run.name} --force`"
        )


def _files_read(manifest: Manifest, *, models: bool) -> dict[str, str]:
    """SHA-256 by name: annotations, weights, configurations and tokenizers."""
    found = {"annotations": manifest.data.annotations_sha256}
    for part, folder in manifest.models.items() if models else ():
        for name, sha256 in folder.files.items():
            if name.endswith((".safetensors", ".json", ".model")):
                found[f"{part}: {name}"] = sha256
    return found


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
