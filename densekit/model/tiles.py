"""AnyRes outside of training: the tokens of each image's tiles, in the order of the sequence."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densekit.spec.anyres import NEWLINE
from densekit.spec.vision import ImageLayout


def in_order(
    features: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    layout: ImageLayout,
    newline: Tensor | None,
) -> list[Tensor]:
    """Embeddings [N_i, H] of every image.

    features: [sum of tiles, P, H], image after image, the whole image first; sizes: width and
    height of each image in pixels; newline: [1, H], where rows of tiles end in it. Raises
    ValueError where the tiles are not those of images of these sizes.
    """
    wanted = sum(layout.tiles(size) for size in sizes)
    if wanted != len(features):
        raise ValueError(
            f"{len(features)} tiles given, and images of (width, height) "
            f"{', '.join(map(str, sizes))} have {wanted}: give the tiles of the same images"
        )
    rows, first, found = features.flatten(0, 1), 0, []
    if newline is not None:
        rows = torch.cat([rows, newline.to(rows.dtype)])
    for size in sizes:
        order = torch.tensor(layout.order(size), device=rows.device)
        found.append(rows[torch.where(order == NEWLINE, len(rows) - 1, first + order)])
        first += layout.tiles(size) * layout.tile_tokens
    return found
