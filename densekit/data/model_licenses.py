"""Under what terms the pretrained models are published (models.yaml)."""

import functools
from pathlib import Path

import yaml
from pydantic import Field

from densekit.data.catalog import License
from densekit.errors import DataError
from densekit.recipes.yaml_lines import ShippedLoader
from densekit.spec.part import Part, read_part

FILE = Path(__file__).with_name("models.yaml")


class ModelLicense(License):
    """The terms of one model."""

    id: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """What the hub calls them; None where it has no name for them, or nobody published any."""


class PublishedModel(Part):
    """One repository of a pretrained model."""

    name: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    license: ModelLicense


def license_of(repository: str) -> ModelLicense | None:
    """The terms of a model by its repository; None for one that is not listed. Raises DataError
    for a models.yaml that cannot be read.
    """
    return _read(FILE).get(repository)


@functools.cache
def _read(path: Path) -> dict[str, ModelLicense]:
    try:
        entries = yaml.load(path.read_text(encoding="utf-8"), ShippedLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    models = [
        read_part(
            PublishedModel, entry, source=f"{path}: entry {number}", remedy="correct the entry"
        )
        for number, entry in enumerate(entries)
    ]
    return {model.name: model.license for model in models}
