"""Patch info mining of Mini-Gemini: a second tower sees the image at a high resolution, and every
patch of the first one takes from the window of positions that lie in it.

The specification: Mini-Gemini (arXiv 2403.18814, section 3.1); numbers of its code are recorded
(docs/testing.md).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path

from pydantic import Field, field_validator

from densekit.errors import DataError
from densekit.files.json_files import read_object
from densekit.files.pickle_files import OPEN_CLIP_SAFETENSORS
from densekit.files.weight_files import SINGLE, StoredTensor, read_weight_files
from densekit.spec.part import Fraction, Part, PositiveInt

STEM = 4
"""Pixels a side that one position of the high-resolution tower's first stage covers."""
KERNEL = 7
"""Of its depthwise convolutions."""
TRUNK = "visual.trunk."
"""How OpenCLIP's own files begin the names of the tower."""
DEPTHS = "stages.{stage}.blocks.{block}.gamma"
IMAGES_PER_PASS = 4
"""Images that pass the high-resolution tower at a time: what is alive inside of it is many times
what it hands over.
"""
CONFIGS = ("open_clip_config.json", "config.json")
"""What says how the tower's pixels are normalised: OpenCLIP's own file, or timm's."""
MAX_DEPTH = 1000


class Mining(Part):
    """A high-resolution tower beside the vision tower, and what each patch takes of it."""

    image_size: PositiveInt = Field(le=4096)
    """Pixels a side of the image that the high-resolution tower sees; the vision tower sees the
    same normalised pixels, interpolated to its own size.
    """
    window: PositiveInt = Field(le=64)
    """Positions a side of the high-resolution tower that lie in one patch of the vision tower."""
    drop_path: Fraction
    """Rate of stochastic depth in the last block of the frozen tower while training, rising from 0
    in the first one.
    """

    @field_validator("image_size")
    @classmethod
    def _whole_positions(cls, size: int) -> int:
        if size % STEM:
            raise ValueError(f"a multiple of {STEM} is needed, the patch of a ConvNeXt, not {size}")
        return size

    @property
    def side(self) -> int:
        """Positions a side of the high-resolution tower's first stage."""
        return self.image_size // STEM

    def operations(self, patches: int, width: int, channels: int) -> int:
        """Floating-point operations of an image: forward, and the gradients of the weights."""
        positions = patches * self.window**2
        linears = 2 * (patches * width * width + 2 * positions * channels * width)
        # Scores and what is taken have gradients of both of their factors.
        return 2 * linears + 3 * 4 * positions * width

    def check_patches(self, side: int) -> None:
        """Raise ValueError for a vision tower of `side` x `side` patches that do not each hold a
        whole window.
        """
        if side * self.window != self.side:
            whole = STEM * side * self.window
            raise ValueError(
                f"mining at {self.image_size} pixels has {self.side} x {self.side} positions in "
                f"windows of {self.window} x {self.window}, and the vision tower has {side} x "
                f"{side} patches, which need {side * self.window} x {side * self.window}: set "
                f"connector.mining.image_size to {whole}, or use a tower of "
                f"{self.side // self.window} x {self.side // self.window} patches"
            )


@dataclass(frozen=True, kw_only=True)
class ConvTower:
    """The size of a ConvNeXt without its head."""

    widths: tuple[int, ...]
    """Channels of each stage; the first one has the stem's."""
    depths: tuple[int, ...]
    """Blocks of each stage."""

    @property
    def channels(self) -> int:
        """Of all stages, one beside the other."""
        return sum(self.widths)

    @property
    def parameters(self) -> int:
        """Stem, stages and what lies between them."""
        first = self.widths[0]
        stem = 3 * STEM**2 * first + 3 * first
        between = sum(2 * a + 4 * a * b + b for a, b in pairwise(self.widths))
        blocks = sum(
            depth * (KERNEL**2 * width + width + 2 * width + 8 * width**2 + 5 * width + width)
            for width, depth in zip(self.widths, self.depths, strict=True)
        )
        return stem + between + blocks

    def operations(self, image_size: int) -> int:
        """Floating-point operations of an image of so many pixels a side."""
        total, before, side = 0, 3 * STEM**2, image_size // STEM
        for width, depth in zip(self.widths, self.depths, strict=True):
            block = KERNEL**2 * width + 8 * width**2
            total += 2 * side**2 * (before * width + depth * block)
            before, side = 4 * width, side // 2
        return total

    def pass_elements(self, image_size: int) -> int:
        """Numbers of an image that are alive at most inside of a block of the first stage: its
        input, and what the MLP makes of it before and behind its activation.
        """
        return 9 * self.widths[0] * (image_size // STEM) ** 2

    def widened_elements(self, image_size: int) -> int:
        """Numbers of an image in the widest stage, interpolated to the first one's size."""
        return max(self.widths[1:], default=0) * (image_size // STEM) ** 2


CONV_TOWERS = {
    "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup": ConvTower(
        widths=(192, 384, 768, 1536), depths=(3, 3, 27, 3)
    ),
}
"""The paper's high-resolution tower."""


def tower_files(folder: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors of a high-resolution tower's folder by their names in the file, and everything
    that is wrong with them.
    """
    single = OPEN_CLIP_SAFETENSORS if (folder / OPEN_CLIP_SAFETENSORS).is_file() else SINGLE
    return read_weight_files(folder, single=single)


def trunk_names(names: Iterable[str]) -> dict[str, str]:
    """timm's name of every tensor -> its name in the file; of OpenCLIP's files the tower alone."""
    listed = [*names]
    inside = [name for name in listed if name.startswith(TRUNK)]
    return {name.removeprefix(TRUNK): name for name in inside or listed}


def conv_tower_of(shapes: Mapping[str, Sequence[int]], folder: Path) -> ConvTower:
    """The size that the tensors of a ConvNeXt say, by timm's names. Raises DataError for tensors of
    something else.
    """
    widths: list[int] = []
    depths: list[int] = []
    for stage in count():
        blocks = 0
        while (name := DEPTHS.format(stage=stage, block=blocks)) in shapes:
            if blocks == 0:
                if len(shapes[name]) != 1:
                    raise DataError(
                        f"high-resolution tower: {name} in {folder} is not one number a channel: "
                        "name the folder of an OpenCLIP ConvNeXt"
                    )
                widths.append(shapes[name][0])
            blocks += 1
            if blocks > MAX_DEPTH:
                break
        if not blocks:
            break
        depths.append(blocks)
    if not depths:
        raise DataError(
            f"high-resolution tower: the weights in {folder} are not those of a ConvNeXt (no "
            f"tensor {DEPTHS.format(stage=0, block=0)}): name the folder of an OpenCLIP ConvNeXt"
        )
    return ConvTower(widths=tuple(widths), depths=tuple(depths))


def read_conv_tower(folder: Path) -> ConvTower:
    """The size of the high-resolution tower in a folder, from the headers of its weights. Raises
    DataError.
    """
    tensors, problems = tower_files(folder)
    if problems:
        raise DataError(f"high-resolution tower: {'; '.join(problems)}")
    named = trunk_names(tensors)
    shapes = {short: tensors[name].entry.shape for short, name in named.items()}
    return conv_tower_of(shapes, folder)


def normalisation_of(folder: Path) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the high-resolution tower's pixels, by channel. Raises
    DataError where its folder does not say.
    """
    for name in CONFIGS:
        if not (folder / name).is_file():
            continue
        config = read_object(folder / name, remedy="download the folder again")
        for key in ("preprocess_cfg", "pretrained_cfg"):
            found = config.get(key)
            if isinstance(found, dict) and {"mean", "std"} <= found.keys():
                mean, std = found["mean"], found["std"]
                if all(is_colour(value) for value in (mean, std)):
                    return mean, std
                raise DataError(
                    f"high-resolution tower: {folder / name}: {key}.mean and {key}.std are not "
                    "three numbers each: download the folder again"
                )
    raise DataError(
        f"high-resolution tower: {folder} says nowhere how pixels are normalised: put the "
        f"published {CONFIGS[0]} there"
    )


def is_colour(value: object) -> bool:
    """Whether a value is three numbers, one a channel."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in value)
    )
