"""Disk that a recipe needs: data, models, checkpoints, results, image."""

from dataclasses import dataclass

from densekit.spec.architectures import ModelShape
from densekit.spec.hardware import GIB
from densekit.spec.recipe import Recipe
from densekit.spec.types import Dtype

GB = 10**9
CHECKPOINT_BYTES = 12
"""Of a trained weight: itself and two moments, fp32."""
MODEL_BYTES = 2
"""Of a weight in a published language model; the towers' are in fp32 and small."""
IMAGE_GB = 12
"""Assumed for a GPU image: torch with its CUDA libraries and compiled kernels."""
COCO_IMAGE = 20 * GB / 118287
"""Bytes of an image; assumed for folders whose size nobody published."""
DATA = {
    "blip_laion_cc_sbu_558k.json": {
        "blip_laion_cc_sbu_558k.json": 0.181 * GB,
        "images.zip": 27.4 * GB,
    },
    "llava_v1_5_mix665k.json": {
        "coco/train2017": 20 * GB,
        "gqa/images": 21 * GB,
        "vg": 14 * GB,
        "ocr_vqa/images": 207572 * COCO_IMAGE,
        "textvqa/train_images": 25119 * COCO_IMAGE,
    },
    "mgm_pretrain.json": {"mgm_pretrain.json": 1.68 * GB},
    "mgm_instruction.json": {"mgm_instruction.json": 1.79 * GB},
}
"""Bytes of published files by annotation file. Sources: docs/planner.md, "Disk"."""


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
    recipe: Recipe, shape: ModelShape, *, trained: int, dtype: Dtype, keep: int, image: bool
) -> Disk:
    """Disk of one stage: `trained` weights with gradients, `keep` checkpoints and one that is being
    written.
    """
    notes = []
    data = 0.0
    if recipe.assets is None:
        file = recipe.data.annotations.rpartition("/")[2]
        known = DATA.get(file, {})
        data = sum(known.values())
        if not known:
            notes.append("disk: the size of the data is not known, and not counted")
        elif file.startswith("mgm"):
            notes.append(
                "disk: of the Mini-Gemini data only the annotations are counted; nobody published the images' size"
            )
    full = trained > shape.language.parameters
    whole = shape.parameters * (4 if dtype == "fp32" else 2)
    return Disk(
        parts={
            "data": data,
            "models": shape.language.parameters * MODEL_BYTES + shape.tower_parameters * 4,
            "checkpoints": CHECKPOINT_BYTES * trained * (keep + 1),
            "results": whole if full else 2 * 4 * trained,  # initial and trained weights, fp32
            "image": IMAGE_GB * GB if image else 0,
        },
        notes=tuple(notes),
    )
