"""A data set of the catalog as Croissant: what it says, and that mlcroissant takes it."""

import json

import pytest

from densekit.data.catalog import data_set_of, data_sets
from densekit.data.croissant import CONTEXT, NO_HASH, croissant
from densekit.data.doctor.pins import Pin

NAMES = [entry.name for entry in data_sets()]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_description_says(name: str) -> None:
    data_set = next(entry for entry in data_sets() if entry.name == name)
    found = json.loads(json.dumps(croissant(data_set)))
    assert found["@type"] == "sc:Dataset" and found["@context"] == CONTEXT
    assert (found["name"], found["license"]) == (name, data_set.license.text)
    ids = [part["@id"] for part in found["distribution"]]
    assert len(set(ids)) == len(ids) >= len(data_set.distribution)
    for part in found["distribution"]:
        inside = part.get("containedIn", {}).get("@id")
        assert inside in (None, "repository") and (inside is None or "repository" in ids)
        assert part["@type"] == "cr:FileSet" or part["contentUrl"]
        assert part["@type"] == "cr:FileSet" or (part["sha256"] == NO_HASH) != (
            len(part["sha256"]) == 64
        )


def test_addresses_and_hashes() -> None:
    data_set = data_set_of("llava_v1_5_mix665k.json")
    assert data_set is not None
    parts = {part["@id"]: part for part in croissant(data_set)["distribution"]}
    mirror = parts["ocr_vqa/images"]
    assert mirror["contentUrl"].startswith(
        "https://huggingface.co/datasets/weizhiwang/llava_v15_instruction_images/resolve/93689de3"
    )
    assert mirror["sha256"].startswith("3759c8aa") and mirror["contentSize"] == "8.97 GB"
    assert parts["llava_v1_5_mix665k.json"]["sha256"] == NO_HASH
    pin = Pin(annotations_sha256="a" * 64, annotations_size=1)
    parts = {part["@id"]: part for part in croissant(data_set, pin)["distribution"]}
    assert parts["llava_v1_5_mix665k.json"]["sha256"] == "a" * 64


@pytest.mark.slow
@pytest.mark.ranks
@pytest.mark.parametrize("name", NAMES)
def test_mlcroissant_finds_no_error(name: str) -> None:
    import mlcroissant  # type: ignore[import-untyped]

    data_set = next(entry for entry in data_sets() if entry.name == name)
    description = mlcroissant.Dataset(croissant(data_set))
    assert not description.metadata.ctx.issues.errors
