"""Patch info mining on a tape of sizes (densekit.model.mining)."""

from collections.abc import Callable

from densekit.planner.memory_trace.autograd import SizedTensor, Tape
from densekit.planner.memory_trace.operations import (
    add,
    function,
    joined,
    layer_norm,
    linear,
    product,
    scaled,
    tanh,
)
from densekit.spec.architectures import ModelShape

Weight = Callable[[int], SizedTensor]


def mined(
    tape: Tape, shape: ModelShape, images: int, dense: SizedTensor, weight: Weight
) -> SizedTensor:
    """The dense features of so many images with what was mined added to their first channels.
    Windows and dense features of the frozen towers are counted elsewhere.
    """
    conv, mining = shape.high_resolution, shape.connector.connector.mining
    if conv is None or mining is None:
        return dense
    width, patches = shape.tower.hidden, images * shape.tower.patches
    positions = patches * mining.window**2
    windows = SizedTensor(positions * conv.channels, dense.width, None)
    high = SizedTensor(patches * width, dense.width, None)
    query = _projection(tape, high, (width, width), patches, weight)
    keys = scaled(tape, _projection(tape, windows, (conv.channels, width), positions, weight))
    scores = function(tape, product(tape, query, keys, positions))
    del query, keys
    attention = tanh(tape, tape.raised(scores))
    del scores
    values = _projection(tape, windows, (conv.channels, width), positions, weight)
    taken = product(tape, attention, values, patches * width)
    del attention, values
    rest = SizedTensor(dense.numel - high.numel, dense.width, None)
    return joined(tape, [add(tape, high, taken), rest], dense.numel)


def _projection(
    tape: Tape, x: SizedTensor, sizes: tuple[int, int], rows: int, weight: Weight
) -> SizedTensor:
    """LayerNorm and Linear."""
    inputs, outputs = sizes
    normed = layer_norm(tape, x, [weight(inputs), weight(inputs)], rows)
    return linear(tape, normed, weight(inputs * outputs), rows=rows, bias=weight(outputs))
