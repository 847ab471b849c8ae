"""The sections of a card that say how a run was trained, from what, and under what terms."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from densekit.data.catalog import License
from densekit.data.model_licenses import license_of
from densekit.exchange.publish.subject import Subject, shown
from densekit.spec.math import Data
from densekit.spec.part import Part
from densekit.spec.saved_file import SavedFile
from densekit.spec.types import Dtype

PAPER = "arXiv 2405.13800"
TRAINED = {
    "connector": "the connector",
    "full": "connector and language model",
    "lora": "connector and LoRA adapters, which are merged into the language model here",
}

TOWER = ", and the vision tower"
"""Of a run that has a rate for it."""


def summary_lines(subject: Subject) -> Iterator[str]:
    """What it is."""
    math = subject.math.recipe
    title = subject.recipe.title if subject.recipe else math.name
    yield (
        f"{title}: a LLaVA-style model with the connector {math.connector.kind.upper()} of "
        f'"Dense Connector for MLLMs" ({PAPER}), trained with densekit '
        f"{subject.manifest.environment.densekit} from the recipe `{math.name}`."
    )
    if subject.made:
        yield (
            "\nLanguage model, vision tower and data were made by densekit itself and are tiny: it "
            "shows that the kit works, and nothing about the paper."
        )


def training_lines(subject: Subject) -> Iterator[str]:
    """How it was trained, as a table."""
    math, recipe, summary = subject.math.recipe, subject.recipe, subject.summary
    environment, execution = subject.manifest.environment, subject.manifest.execution
    yield "## Training\n"
    yield from table(
        ("", ""),
        [
            ("Recipe", f"`{math.name}`, stage {math.stage}"),
            ("Row of the paper", recipe.paper if recipe and recipe.paper else "none"),
            ("Language model", _model(subject, "language_model", math.models.language_model)),
            ("Vision tower", _model(subject, "vision_tower", math.models.vision_tower)),
            *(
                [("High-resolution tower", _model(subject, "high_resolution_tower", second))]
                if (second := math.models.high_resolution_tower)
                else []
            ),
            ("Connector", _connector(subject)),
            ("Trained", TRAINED[math.trains] + TOWER * math.trains_tower),
            ("Images", _images(math.data)),
            ("Data", f"{shown(math.data.annotations)}, template `{math.data.template}`"),
            ("Steps", f"{summary.get('steps')} of {math.global_batch_size} samples"),
            ("Learning rate", f"{math.optimizer.learning_rate:g}"),
            *([("LoRA", f"r {math.lora.r}, alpha {math.lora.alpha}")] if math.lora else []),
            ("Seed", str(math.seed)),
            ("Computed in", subject.dtype),
            ("Processes", str(execution.get("world_size"))),
            (
                "Devices",
                ", ".join(sorted({device.name for device in environment.devices})) or "CPU",
            ),
            (
                "Loss",
                f"{_loss(summary, 'first_loss')} at first, {_loss(summary, 'last_loss')} at last",
            ),
        ],
    )


def _loss(summary: Mapping[str, Any], which: str) -> str:
    value = summary.get(which)
    return f"{value:.4g}" if isinstance(value, float) else "not recorded"


def _model(subject: Subject, part: str, reference: str) -> str:
    repository = subject.repositories.get(f"models.{part}")
    if repository is None:
        return f"made by densekit (`{reference}`)" if subject.made else shown(reference)
    files = subject.manifest.models.get(part)
    at = f" at commit `{files.revision}`" if files and files.revision else ", commit not recorded"
    return f"[{repository}](https://huggingface.co/{repository}){at}"


def _connector(subject: Subject) -> str:
    connector = subject.math.recipe.connector
    reads = [f"layers {list(connector.layers)}"] if connector.layers else []
    reads += [f"groups {[list(group) for group in connector.groups]}"] if connector.groups else []
    what = f" ({', '.join(reads)}, hidden_states indices)" if reads else ""
    more = []
    if connector.learned is not None:
        more.append(f"`learned`: {_said(connector.learned)}")
    if connector.reduce_tokens != "none":
        more.append(f"the means of 2 x 2 tokens, {connector.reduce_tokens.replace('_', ' the ')}")
    if connector.mining is not None:
        more.append(f"`mining`: {_said(connector.mining)}")
    return "; ".join([f"{connector.kind.upper()}{what}", *more])


def _images(data: Data) -> str:
    if data.anyres is None:
        return data.image_aspect_ratio
    sizes = ", ".join(f"{width} x {height}" for width, height in data.anyres.pinpoints)
    return f"{data.image_aspect_ratio}: tiles of {sizes}, merged as {data.anyres.merge}"


def _said(part: Part) -> str:
    values = part.model_dump(mode="json")
    return ", ".join(f"{name} {str(value).lower()}" for name, value in values.items())


def deviations_lines(subject: Subject) -> Iterator[str]:
    """Where it is not what its recipe or the official code computes."""
    yield "## Deviations\n"
    found = list(subject.deviations())
    ledger = ", ".join(f"{key} {value}" for key, value in subject.math.recipe.ledger.items())
    if not found:
        yield "None from the recipe."
    yield from (f"- {line}" for line in found)
    yield f"\nLedger of the official code's behaviour (docs/upstream.md of densekit): {ledger}."
    if subject.recipe and subject.recipe.notes:
        yield "\nNotes of the recipe:\n"
        yield from (f"- {note}" for note in subject.recipe.notes)


def provenance_lines(
    subject: Subject, dtype: Dtype | None, files: Mapping[str, SavedFile]
) -> Iterator[str]:
    """Every hash that leads from the weights back to data and code."""
    manifest = subject.manifest
    git, chain = manifest.environment.git, manifest.chain
    commit = "unknown" if git is None else f"`{git.commit}`{' with changes' if git.dirty else ''}"
    yield "## Provenance\n"
    yield (
        "`manifest.json` is the run's manifest without the paths of the machine, `math.json` what "
        "it computed. The hashes are SHA-256.\n"
    )
    rows = [
        ("Run (math.json)", f"`{subject.math.sha256}`"),
        ("Stage-1 run that it starts from", _hash(subject.math.starts_from)),
        ("Seal of the run's manifest.json", _hash(manifest.sha256)),
        ("Code of densekit", commit),
        ("Container image", _hash(manifest.environment.image)),
        ("Annotations", _hash(manifest.data.annotations_sha256)),
        ("Data certificate, root", _hash(manifest.data.certificate_root)),
        ("Batch certificate", _hash(manifest.certificate.sha256)),
        ("Weights at step 0", _hash(manifest.init_sha256)),
        ("End of the chain of metrics", _hash(chain.sha256 if chain else None)),
    ]
    yield from table(("what", "SHA-256"), rows)
    yield f"\nWeights as published ({dtype or 'each tensor in the type it was stored in'}):\n"
    weights = {n: file for n, file in files.items() if PurePosixPath(n).suffix == ".safetensors"}
    yield from table(
        ("file", "bytes", "SHA-256"),
        [(f"`{n}`", f"{file.bytes:,}", f"`{file.sha256}`") for n, file in weights.items()],
    )


def _hash(value: str | None) -> str:
    return f"`{value}`" if value else "not recorded"


def licenses_lines(subject: Subject) -> Iterator[str]:
    """Terms of what the weights derive from."""
    yield "## Licences\n"
    yield (
        "The weights derive from these; whoever uses them keeps to the terms of each. Read the "
        "terms at their source: this list is a help, not advice.\n"
    )
    if subject.made:
        yield "- Language model, vision tower and data were made by densekit from a seed."
        return
    second = subject.math.recipe.models.high_resolution_tower
    for field, what in (
        ("models.language_model", "Language model"),
        ("models.vision_tower", "Vision tower"),
        *((("models.high_resolution_tower", "High-resolution tower"),) if second else ()),
    ):
        repository = subject.repositories.get(field)
        yield f"- {what}{f' {repository}' if repository else ''}: " + _terms(
            license_of(repository) if repository else None
        )
    data_set = subject.data_set
    what = f"Data {data_set.name}" if data_set else "Data"
    yield f"- {what}: {_terms(data_set.license if data_set else None)}"


def _terms(terms: License | None) -> str:
    return f"{terms.text} (source: {terms.source})" if terms else "not in densekit's catalogue"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
