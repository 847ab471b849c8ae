"""In what two runs were given something different: recipe, data, weights at step 0; one sentence
each with evidence.

Each difference has a topic, which says what kind of divergence it can bring about
(`explanations.py` ranks by it). Model folders are compared in `model_files.py`, code and machine in
`environment.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from densekit.audit.diff.divergence import entry_index
from densekit.audit.run_reader import RecordedRun
from densekit.audit.wording import as_json, count_of, shown
from densekit.errors import DataError
from densekit.files.hashing import file_sha256
from densekit.files.safetensors_diff import first_tensor_difference
from densekit.runs.layout import INIT_FILE, MATH_FILE
from densekit.runs.manifest import MANIFEST_FILE
from densekit.runs.records import FEED_FILE

NO_EFFECT = "no effect"
"""Topic of what changes no value, such as a name."""
# The most specific prefix wins. What is not listed may explain anything a model computes.
RECIPE_TOPICS = {
    "seed": "seed",
    "reference": "order",
    "global_batch_size": "order",
    "data.group_by_modality_length": "order",
    "ledger.U9": "order",
    "data.annotations": "annotations",
    "data.images": "image folder",
    "models": "models",
    "data.template": "text",
    "data.max_length": "text",
    "ledger.L1": "text",
    "data.image_aspect_ratio": "pixels",
    "optimizer.learning_rate": "schedule",
    "optimizer.warmup_ratio": "schedule",
    "optimizer.schedule": "schedule",
    "optimizer.epochs": "length",
    "optimizer.max_steps": "length",
    "optimizer": "optimizer",
    "assets": "assets",
    "name": NO_EFFECT,
    "needs": NO_EFFECT,
    "probe": NO_EFFECT,
    "data.samples": NO_EFFECT,
}
RECIPE_NAMES = {"seed": "seed", "optimizer.learning_rate": "learning rate"}

NAMED_ITEMS = 3


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that differs."""

    topic: str
    message: str
    """What it is, with both values."""
    evidence: str
    """Where they were read."""


def recipe_differences(a: RecordedRun, b: RecordedRun) -> Iterator[Difference]:
    """Every field of the two recipes that differs, by its dotted path, and the run they start
    from.
    """
    one, two = (flat(run.math.recipe.as_json()) if run.math else {} for run in (a, b))
    for field in [*one, *(field for field in two if field not in one)]:
        if one.get(field) != two.get(field):
            name = RECIPE_NAMES.get(field, f"`{field}`")
            yield Difference(
                topic=NO_EFFECT if _same_content(a, b, field) else _recipe_topic(field),
                message=f"{name} differs: {spelled(one, field)} and {spelled(two, field)}",
                evidence=f"{MATH_FILE}, recipe.{field}",
            )
    first, second = (run.math.starts_from if run.math else None for run in (a, b))
    if first != second:
        places = [run.execution.starts_from if run.execution else None for run in (a, b)]
        yield Difference(
            topic=NO_EFFECT if _same_init(a, b) else "start",
            message=f"the run it starts from differs: {shown(first)} and {shown(second)}",
            evidence=f"{MATH_FILE}, starts_from; compare {places[0]} and {places[1]}",
        )


def data_differences(a: RecordedRun, b: RecordedRun) -> Iterator[Difference]:
    """Entries and images that both runs fed under the same index with other content, and the
    annotation file.
    """
    one, two = _fed_by_index(a), _fed_by_index(b)
    shared = [index for index in one if index in two]
    entries = [index for index in shared if one[index][0] != two[index][0]]
    images = [index for index in shared if one[index][1] != two[index][1]]
    place = " and ".join(dict.fromkeys(_annotations(run) for run in (a, b)))
    for indices, topic, what, at in (
        (entries, "sample", "annotation entry", 0),
        (images, "image", "image of annotation entry", 1),
    ):
        for index in indices[:NAMED_ITEMS]:
            yield Difference(
                topic=topic,
                message=f"{what} {index} differs: {shown(one[index][at])} and "
                f"{shown(two[index][at])}",
                evidence=f"{FEED_FILE}; entry {index} (from 0) of {place}",
            )
        if len(indices) > NAMED_ITEMS:
            more = len(indices) - NAMED_ITEMS
            counted = (
                count_of(more, "more annotation entry differs", "more annotation entries differ")
                if topic == "sample"
                else count_of(more, "more image differs", "more images differ")
            )
            yield Difference(topic=topic, message=counted, evidence=FEED_FILE)
    files = [run.inputs.get("annotations") for run in (a, b)]
    if None not in files and files[0] != files[1]:
        yield Difference(
            topic="annotations",
            message=f"annotation file differs: {shown(files[0])} and {shown(files[1])}",
            evidence=f"{MATH_FILE}, inputs.annotations; {place}",
        )


def weight_differences(a: RecordedRun, b: RecordedRun) -> Iterator[Difference]:
    """The connector file the recipe gives, and the weights at step 0."""
    first, second = (run.inputs.get("connector") for run in (a, b))
    if first != second:
        yield Difference(
            topic=NO_EFFECT if _same_init(a, b) else "start",
            message=f"connector file to start from differs: {shown(first)} and {shown(second)}",
            evidence=f"{MATH_FILE}, inputs.connector",
        )
    first, second = (_init_sha256(run) for run in (a, b))
    if first != second and first and second:
        yield Difference(
            topic="init",
            message=f"initial weights differ: {shown(first)} and {shown(second)}",
            evidence=f"{MANIFEST_FILE}, init_sha256{_init_tensor(a, b)}",
        )


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted paths; lists stay whole."""
    found: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            found |= flat(item, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = item
    return found


def spelled(values: Mapping[str, Any], field: str) -> str:
    """A field's value as JSON; `absent` where there is none."""
    return as_json(values[field]) if field in values else "absent"


def _recipe_topic(field: str) -> str:
    parts = field.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((RECIPE_TOPICS[prefix] for prefix in prefixes if prefix in RECIPE_TOPICS), "model")


def _same_content(a: RecordedRun, b: RecordedRun, field: str) -> bool:
    """Whether a path in the recipe leads to the same bytes in both runs, so that its name explains
    nothing.
    """
    one, two = (_content(run, field) for run in (a, b))
    return bool(one) and one == two


def _content(run: RecordedRun, field: str) -> str | Mapping[str, str] | None:
    """The hashes of what a recipe's path led to; None where they were not recorded."""
    if field in ("data.annotations", "models.connector"):
        return run.inputs.get(field.partition(".")[2])
    models = run.manifest.models if run.manifest is not None else {}
    part = models.get(field.removeprefix("models."))
    return part.files if part is not None else None


def _init_sha256(run: RecordedRun) -> str | None:
    return run.manifest.init_sha256 if run.manifest is not None else None


def _same_init(a: RecordedRun, b: RecordedRun) -> bool:
    one, two = (_init_sha256(run) for run in (a, b))
    return bool(one) and one == two


def _fed_by_index(run: RecordedRun) -> dict[str, tuple[str, str | None]]:
    """(sample id, image digest) by annotation entry, in the order in which the run first fed
    them.
    """
    found: dict[str, tuple[str, str | None]] = {}
    for fed in run.feed:
        for sample, image in zip(fed.samples, fed.images, strict=True):
            found.setdefault(entry_index(sample), (sample, image))
    return found


def _annotations(run: RecordedRun) -> str:
    """The annotation file for people: where it lay, or its reference when that is not known."""
    reference = run.math.recipe.data.annotations if run.math is not None else "the annotations"
    return str(run.execution.roots.resolve(reference)) if run.execution is not None else reference


def _init_tensor(a: RecordedRun, b: RecordedRun) -> str:
    """Which tensor of the two init.safetensors differs, where both are still the files their
    manifests name.
    """
    paths = [run.path / INIT_FILE for run in (a, b)]
    try:
        if [file_sha256(path) for path in paths] != [_init_sha256(run) for run in (a, b)]:
            return ""
        difference = first_tensor_difference(*paths)
    except (DataError, OSError):
        return ""
    return f"; {difference.describe()}" if difference else ""
