"""In what two runs were given something different: recipe, data, weights at step 0; one sentence
each with evidence.

Each difference has a topic, which says what kind of parting it can bring about (`causes.py` ranks
them by it). Model folders are compared in `model_files.py`, code and machine in `surroundings.py`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from densekit.audit.diff.divergence import entry_index, shown
from densekit.audit.run_reader import Evidence, section
from densekit.errors import DataError
from densekit.files.hashing import file_sha256
from densekit.files.tensors import first_tensor_difference
from densekit.runs.layout import INIT_FILE
from densekit.runs.manifest import MANIFEST_FILE

# The most telling prefix wins. What is not listed may explain anything a model computes.
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
    "name": "label",
    "needs": "label",
    "probe": "label",
    "data.samples": "label",
}
RECIPE_WORDS = {"seed": "the seed", "optimizer.learning_rate": "the learning rate"}

NAMED_ITEMS = 3
LONGEST = 80


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that differs: its `topic`, what it is in words with both values, and where that was
    read.
    """

    topic: str
    words: str
    evidence: str


def recipe_differences(a: Evidence, b: Evidence) -> Iterator[Difference]:
    """Every field of the two recipes that differs, by its dotted path, and the run they start from."""
    one, two = flat(a.recipe), flat(b.recipe)
    for field in [*one, *(field for field in two if field not in one)]:
        if one.get(field) != two.get(field):
            what = RECIPE_WORDS.get(field, f"`{field}`")
            words = f"{what} differs: {spelled(one, field)} and {spelled(two, field)}"
            topic = "label" if _same_content(a, b, field) else _recipe_topic(field)
            yield Difference(topic=topic, words=words, evidence=f"math.json, recipe.{field}")
    first, second = (run.math.get("starts_from") for run in (a, b))
    if first != second:
        paths = " and ".join(str(run.execution.get("starts_from")) for run in (a, b))
        words = f"the run it starts from differs: {shown(first)} and {shown(second)}"
        topic = "label" if _same_init(a, b) else "start"
        yield Difference(
            topic=topic, words=words, evidence=f"math.json, starts_from; compare {paths}"
        )


def data_differences(a: Evidence, b: Evidence) -> Iterator[Difference]:
    """Entries and images that both runs fed under the same index with other content, and the
    annotation file.
    """
    one, two = _fed_by_index(a), _fed_by_index(b)
    shared = [index for index in one if index in two]
    entries = [index for index in shared if one[index][0] != two[index][0]]
    images = [index for index in shared if one[index][1] != two[index][1]]
    place = " and ".join(dict.fromkeys(_annotations(run) for run in (a, b)))
    files = [run.inputs.get("annotations") for run in (a, b)]
    for indices, topic, at in ((entries, "sample", 0), (images, "image", 1)):
        for index in indices[:NAMED_ITEMS]:
            what = (
                f"sample {index}'s entry changed"
                if topic == "sample"
                else f"the image of sample {index} changed"
            )
            words = f"{what}: {shown(one[index][at])} and {shown(two[index][at])}"
            yield Difference(
                topic=topic, words=words, evidence=f"feed.jsonl; entry {index} (from 0) of {place}"
            )
        if len(indices) > NAMED_ITEMS:
            words = f"{len(indices) - NAMED_ITEMS} more {'entries' if topic == 'sample' else 'images'} changed"
            yield Difference(topic=topic, words=words, evidence="feed.jsonl")
    if None not in files and files[0] != files[1]:
        words = f"the annotation file differs: {shown(files[0])} and {shown(files[1])}"
        yield Difference(
            topic="annotations", words=words, evidence=f"math.json, inputs.annotations; {place}"
        )


def weight_differences(a: Evidence, b: Evidence) -> Iterator[Difference]:
    """The connector file the recipe gives, and the weights at step 0."""
    first, second = (run.inputs.get("connector") for run in (a, b))
    if first != second:
        words = f"the connector file to start from differs: {shown(first)} and {shown(second)}"
        topic = "label" if _same_init(a, b) else "start"
        yield Difference(topic=topic, words=words, evidence="math.json, inputs.connector")
    first, second = (run.manifest.get("init_sha256") for run in (a, b))
    if first != second and first and second:
        words = f"initial weights differ: {shown(first)} and {shown(second)}"
        evidence = f"{MANIFEST_FILE}, init_sha256{_init_tensor(a, b)}"
        yield Difference(topic="init", words=words, evidence=evidence)


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted paths; lists stay whole."""
    found: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            found |= flat(item, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = item
    return found


def _recipe_topic(field: str) -> str:
    parts = field.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((RECIPE_TOPICS[prefix] for prefix in prefixes if prefix in RECIPE_TOPICS), "model")


def _same_content(a: Evidence, b: Evidence, field: str) -> bool:
    """Whether a path in the recipe leads to the same bytes in both runs, so that its name explains
    nothing.
    """
    one, two = (_content(run, field) for run in (a, b))
    return bool(one) and one == two


def _content(run: Evidence, field: str) -> Any:
    """The hashes of what a recipe's path led to; None where they were not recorded."""
    if field in ("data.annotations", "models.connector"):
        return run.inputs.get(field.partition(".")[2])
    part = field.removeprefix("models.")
    path = run.path / MANIFEST_FILE
    return section(section(section(run.manifest, "models", path), part, path), "files", path)


def _same_init(a: Evidence, b: Evidence) -> bool:
    one, two = (run.manifest.get("init_sha256") for run in (a, b))
    return bool(one) and one == two


def _fed_by_index(run: Evidence) -> dict[str, tuple[str, str | None]]:
    """(sample id, image digest) by annotation entry, in the order in which the run first fed them."""
    found: dict[str, tuple[str, str | None]] = {}
    for fed in run.feed.values():
        for sample, image in zip(fed.samples, fed.images, strict=True):
            found.setdefault(entry_index(sample), (sample, image))
    return found


def spelled(values: Mapping[str, Any], field: str) -> str:
    """A value as JSON for people, cut where it is long; `absent` where there is none."""
    if field not in values:
        return "absent"
    text = json.dumps(values[field], ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _annotations(run: Evidence) -> str:
    """The annotation file for people: where it lay, or its reference when that is not known."""
    reference = str(flat(run.recipe).get("data.annotations"))
    return str(run.roots.resolve(reference)) if run.execution else reference


def _init_tensor(a: Evidence, b: Evidence) -> str:
    """Which tensor of the two init.safetensors differs, where both are still the files their
    manifests name.
    """
    paths = [run.path / INIT_FILE for run in (a, b)]
    named = [run.manifest.get("init_sha256") for run in (a, b)]
    try:
        if [file_sha256(path) for path in paths] != named:
            return ""
        difference = first_tensor_difference(*paths)
    except (DataError, OSError):
        return ""
    return f"; {difference.words()}" if difference else ""
