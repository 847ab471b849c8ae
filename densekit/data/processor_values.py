"""What a tower's preprocessor_config.json makes of images; a step that would make other pixels than
`data.pixels` does is refused by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from PIL import Image

from densekit.spec.config_numbers import MAX_EDGE
from densekit.spec.mining import is_colour

Resize = Literal["shortest_edge", "squash"]
"""CLIP: shortest edge to the size, then centre crop; SigLIP: both edges to it, aspect ratio
lost.
"""
Colour = tuple[float, float, float]
"""A number for each channel."""
RESCALE_ROUNDING = 1e-4
"""Published files write 1/255 with as many digits as they like."""
TYPES = ("CLIPImageProcessor", "CLIPFeatureExtractor", "SiglipImageProcessor")
"""What a preprocessor_config.json calls the processors that are computed here."""
BACKENDS = ("", "Fast", "Pil")
"""What transformers puts behind such a name."""
ALWAYS = ("do_resize", "do_rescale", "do_normalize")
"""Steps of a processor that are always done; none but these, the crop and the conversion to RGB
is ever done.
"""
LEAST_DEVIATION = 1e-3
"""Of a channel that goes from 0 to 1: published ones are about 0.26 and 0.5."""


def resizing(config: Mapping[str, Any]) -> tuple[Resize, int]:
    """How images are resized, and to which edge in pixels, by a preprocessor_config.json.

    Raises KeyError for a value that is missing, ValueError for a step that would make other pixels
    than are made here.
    """
    kind = config.get("image_processor_type", config.get("feature_extractor_type"))
    if kind is not None and kind not in [name + end for name in TYPES for end in BACKENDS]:
        raise ValueError(
            f"its type is {str(kind)[:60]}: the file of a CLIP or SigLIP tower is needed "
            f"({', '.join(TYPES)})"
        )
    siglip = str(kind).startswith("Siglip")
    size = config["size"]
    if _is_edge(size) and not siglip:  # releases of transformers differ in SigLIP's meaning of one
        size = {"shortest_edge": size}
    given = {name: edge for name, edge in size.items() if edge} if isinstance(size, dict) else {}
    edges = {*given.values()}
    if {*given} not in ({"shortest_edge"}, {"height", "width"}) or len(edges) != 1:
        raise ValueError(
            f"size is {str(size)[:60]}: `shortest_edge` alone or `height` and `width` of a square "
            "are needed"
        )
    (edge,) = edges
    if not _is_edge(edge):
        raise ValueError(f"size {str(size)[:60]}: an edge of 1 to {MAX_EDGE} pixels is needed")
    if config.get("resample", 3) != Image.Resampling.BICUBIC:
        raise ValueError(f"resample {str(config['resample'])[:60]} is not bicubic (3)")
    shortest = "shortest_edge" in given
    crops = config.get("do_center_crop", not siglip)
    if shortest and crops is not True:
        raise ValueError(
            f"do_center_crop is {crops}: the middle is always cut out where size is the shortest "
            "edge (CLIP), and SigLIP's size has `height` and `width`"
        )
    crop = config.get("crop_size", edge)
    if crops and crop not in (edge, {"height": edge, "width": edge}):
        raise ValueError(f"crop_size {str(crop)[:60]} is not the size, {edge}")
    return "shortest_edge" if shortest else "squash", edge


def normalisation(config: Mapping[str, Any]) -> tuple[Colour, Colour]:
    """Mean and deviation of the channels; errors as `resizing`."""
    for step in ALWAYS:
        if config.get(step, True) is not True:
            raise ValueError(f"{step} is {config[step]}: densekit always does it")
    known = (*ALWAYS, "do_center_crop", "do_convert_rgb")
    for step in config:
        if step.startswith("do_") and step not in known and config[step]:
            raise ValueError(f"{step} is {str(config[step])[:60]}: densekit never does it")
    factor = config.get("rescale_factor", 1 / 255)
    if not isinstance(factor, float) or abs(factor * 255 - 1) > RESCALE_ROUNDING:
        raise ValueError(f"rescale_factor {str(factor)[:60]} is not 1/255")
    mean, std = config["image_mean"], config["image_std"]
    if not is_colour(mean) or not is_colour(std):
        raise ValueError(
            "image_mean and image_std are lists of three numbers, not "
            f"{str(mean)[:60]} and {str(std)[:60]}"
        )
    if min(mean) < 0 or min(std) < LEAST_DEVIATION or max(*mean, *std) > 1:
        raise ValueError(
            f"image_mean {mean} and image_std {std}: channels go from 0 to 1, so means of 0 to 1 "
            f"and deviations of {LEAST_DEVIATION} to 1 are needed"
        )
    return _colour(mean), _colour(std)


def _colour(value: Sequence[float]) -> Colour:
    red, green, blue = map(float, value)
    return red, green, blue


def _is_edge(edge: object) -> bool:
    return isinstance(edge, int) and not isinstance(edge, bool) and 1 <= edge <= MAX_EDGE
