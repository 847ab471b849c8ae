"""The trainable modules of a connector on a tape of sizes (densekit.model.connectors.learned)."""

from collections.abc import Callable

from densekit.planner.memory_trace.autograd import SizedTensor, Tape
from densekit.planner.memory_trace.operations import joined, linear, multiply, shifted
from densekit.spec.architectures import ModelShape


def learned(
    tape: Tape,
    shape: ModelShape,
    images: int,
    given: SizedTensor,
    weight: Callable[[int], SizedTensor],
) -> SizedTensor:
    """What the projector is given of so many images: the frozen half's features `given`, through
    the trainable modules where there are any. `weight` makes a trained parameter of so many
    elements.
    """
    connector, hidden = shape.connector.connector, shape.tower.hidden
    patches = images * shape.connector.features
    if connector.learned is None:
        return given
    copies = connector.modules
    biased = connector.learned.bias
    sizes = [shape.connector.learned // copies - biased * hidden, *[hidden] * biased]
    if connector.kind == "dci_linear":
        sizes = [hidden, hidden, sizes[0] - 2 * hidden, *sizes[1:]]
    modules = [[weight(size) for size in sizes] for _ in range(copies)]
    views = images * shape.connector.views
    numel = views * connector.passed_tokens(shape.tower.patches) * hidden // connector.passing
    whole = views * connector.unreduced(shape.tower.patches) * shape.connector.width
    pieces = [_piece(tape, given, patches * hidden) for _ in range(1 + connector.extra)]
    plain = len(pieces) - connector.passing
    made = pieces[:plain]
    for index in range(connector.passing):
        x = pieces[plain + index]
        weights = modules[index % copies]
        if connector.kind == "dci_linear":
            scale, shift, *weights = weights
            x = shifted(tape, multiply(tape, x, scale), shift)
        matrix, *bias = weights
        made.append(
            linear(tape, x, matrix, rows=patches, bias=bias[0] if bias else None, numel=numel)
        )
    return joined(tape, made, whole)


def _piece(tape: Tape, given: SizedTensor, numel: int) -> SizedTensor:
    """A state among the channels: a view, whose gradient fills a tensor of all of them."""
    view, width = SizedTensor(numel, given.width, given.storage), given.width
    return tape.operation(view, [given], lambda _: [tape.new(given.numel, width)])
