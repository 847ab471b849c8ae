"""Disk that a recipe needs: data, models, checkpoints, results, container image."""

from dataclasses import dataclass

from densekit.data.catalog import FileObject, data_set_of
from densekit.spec.hardware import GIB
from densekit.spec.recipe import Recipe
from densekit.spec.trained_model import TrainedModel
from densekit.spec.types import DTYPE_BYTES, Dtype

GB = 10**9
CHECKPOINT_BYTES = 12
"""Of a trained weight: itself, exp_avg and exp_avg_sq, fp32."""
MODEL_BYTES = 2
"""Of a weight in a published language model; the towers' are in fp32 and small."""
CONTAINER_IMAGE_GB = 12
"""Assumed for a GPU image: torch with its CUDA libraries and compiled kernels."""
FILE_BYTES = 20 * GB / 118287
"""Assumed for a file of a folder whose size nobody published: that of an image of COCO."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes by what they are for."""

    parts: dict[str, float]
    notes: tuple[str, ...]

    @property
    def gib(self) -> float:
        """All of it."""
        return round(sum(self.parts.values()) / GIB, 2)

    @property
    def parts_gib(self) -> dict[str, float]:
        """By part."""
        return {name: round(size / GIB, 2) for name, size in self.parts.items()}

    def lines(self) -> list[str]:
        """One line per part."""
        return [f"{name:12} {size / GIB:8.1f} GiB" for name, size in self.parts.items() if size]


def disk_of(
    recipe: Recipe, model: TrainedModel, *, dtype: Dtype, keep: int, container_image: bool
) -> Disk:
    """Disk of one stage that keeps `keep` checkpoints while it writes another one."""
    shape, trained = model.shape, model.trained
    data, notes = (0.0, []) if recipe.assets is not None else _data(recipe.data.annotations)
    full = trained > shape.language.parameters
    return Disk(
        parts={
            "data": data,
            "models": shape.language.parameters * MODEL_BYTES + shape.tower_parameters * 4,
            "checkpoints": CHECKPOINT_BYTES * trained * (keep + 1),
            # The whole model, or initial and trained weights in fp32.
            "results": shape.parameters * DTYPE_BYTES[dtype] if full else 2 * 4 * trained,
            "image": CONTAINER_IMAGE_GB * GB if container_image else 0,
        },
        notes=tuple(notes),
    )


def _data(annotations: str) -> tuple[float, list[str]]:
    """Bytes of the data set of an annotation file, and a note on what is not counted."""
    data_set = data_set_of(annotations)
    if data_set is None:
        return 0.0, ["disk: the data set is not in the catalog, so its size is not counted"]
    sizes = {file.name: _size(file) for file in data_set.distribution}
    unknown = [name for name, size in sizes.items() if size is None]
    notes = []
    if unknown:
        notes.append(
            f"disk: of {data_set.name}, {', '.join(unknown)} are not counted: nobody published "
            "their size"
        )
    return sum(size for size in sizes.values() if size is not None), notes


def _size(file: FileObject) -> float | None:
    if file.bytes is not None or file.file_count is None:
        return file.bytes
    return file.file_count * FILE_BYTES
