"""A connector's projector rewritten for stock transformers.

LlavaForConditionalGeneration concatenates a list of vision layers in front of its first Linear.
Group means are linear, so W (mean of layers) is a sum of W / n times each layer, and every
connector whose tokens are patches can be written as one wider Linear. Layers ascend, each once:
the form that llama.cpp needs too.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from densekit.errors import DataError
from densekit.spec.connector import Connector, high_level_layer

NAMES = {
    "0.weight": "multi_modal_projector.linear_1.weight",
    "0.bias": "multi_modal_projector.linear_1.bias",
    "2.weight": "multi_modal_projector.linear_2.weight",
    "2.bias": "multi_modal_projector.linear_2.bias",
}


def stock_projector(
    connector: Connector, projector: Mapping[str, Tensor], *, tower_layers: int
) -> tuple[list[int], dict[str, Tensor]]:
    """hidden_states indices in ascending order, and the projector over these layers joined.

    The first Linear is rearranged in fp64 and rounded to fp32; that of `none` is the same. Raises
    DataError for a connector that adds tokens.
    """
    blocks = _blocks(connector, high_level_layer(tower_layers))
    stock = {NAMES[name]: value for name, value in projector.items()}
    if connector.kind == "none":
        return [high_level_layer(tower_layers)], stock
    parts = projector["0.weight"].double().chunk(len(blocks), dim=1)
    by_layer: dict[int, Tensor] = {}
    for part, layers in zip(parts, blocks, strict=True):
        for layer in layers:
            share = part / len(layers)
            by_layer[layer] = by_layer[layer] + share if layer in by_layer else share
    ascending = sorted(by_layer)
    joined = torch.cat([by_layer[layer] for layer in ascending], dim=1)
    return ascending, {**stock, NAMES["0.weight"]: joined.float()}


def _blocks(connector: Connector, high: int) -> list[tuple[int, ...]]:
    """The layers whose mean each block of the first Linear's input is."""
    if connector.mining is not None:
        raise DataError(
            "a connector that mines cannot be written for stock transformers: its Llava has no "
            "second tower; export it with --format densekit"
        )
    if connector.reduce_tokens != "none" or connector.learned:
        what = "has a trainable module" if connector.learned else "reduces the tokens of an image"
        raise DataError(
            f"connector {connector.kind} cannot be written for stock transformers: it {what}, "
            "which its Llava does not compute; export it with --format densekit"
        )
    if connector.kind in ("none", "sci"):
        return [(high,), *((layer,) for layer in connector.layers)]
    if connector.kind == "dci":
        return [(high,), *connector.groups]
    reason = "it adds pooled tokens behind an image's patches" if connector.kind == "sti" else ""
    raise DataError(
        f"connector {connector.kind} cannot be written for stock transformers"
        f"{': ' + reason if reason else ''}; export it with --format official or densekit"
    )
