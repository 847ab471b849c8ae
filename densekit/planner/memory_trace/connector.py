"""The trainable modules of a connector on a tape of sizes (densekit.model.connectors.learned)."""

from collections.abc import Callable

from densekit.planner.memory_trace.autograd import SizedTensor, Tape
from densekit.planner.memory_trace.operations import joined, linear, multiply, shifted
from densekit.spec.architectures import ModelShape


def learned(
    tape: Tape, shape: ModelShape, images: int, half: int, weight: Callable[[int], SizedTensor]
) -> SizedTensor:
    """What the projector is given of so many images: the frozen half's features, through the
    trainable modules where there are any. `weight` makes a trained parameter of so many elements.
    """
    connector, hidden = shape.connector.connector, shape.tower.hidden
    patches = images * shape.connector.features
    given = SizedTensor(patches * shape.connector.feature_width, half, None)
    if connector.learned is None:
        return given
    copies = connector.modules
    biased = connector.learned.bias
    sizes = [shape.connector.learned // copies - biased * hidden, *[hidden] * biased]
    if connector.kind == "dci_linear":
        sizes = [hidden, hidden, sizes[0] - 2 * hidden, *sizes[1:]]
    modules = [[weight(size) for size in sizes] for _ in range(copies)]
    numel = images * connector.passed_tokens(shape.tower.patches) * hidden // connector.passing
    whole = images * connector.unreduced(shape.tower.patches) * shape.connector.width
    made = []
    for index in range(connector.passing):
        x = SizedTensor(patches * hidden, half, None)
        weights = modules[index % copies]
        if connector.kind == "dci_linear":
            scale, shift, *weights = weights
            x = shifted(tape, multiply(tape, x, scale), shift)
        matrix, *bias = weights
        made.append(
            linear(tape, x, matrix, rows=patches, bias=bias[0] if bias else None, numel=numel)
        )
    return joined(tape, made, whole)
