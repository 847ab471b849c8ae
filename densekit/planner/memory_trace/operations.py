"""The operations that densekit's models are made of, on a tape of sizes: what each allocates, saves
and frees.
"""

from collections.abc import Callable

from densekit.planner.memory_trace.autograd import SINGLE, Given, Gradients, SizedTensor, Tape


def linear(
    tape: Tape,
    x: SizedTensor,
    weight: SizedTensor,
    *,
    rows: int,
    bias: SizedTensor | None = None,
    numel: int | None = None,
) -> SizedTensor:
    """x [rows, in] times a matrix: a trained weight saves the input, an input with a history saves
    the weight. A convolution is alike, and says how many elements it makes.
    """
    weight, x = tape.lower(weight), tape.lower(x)
    biases = [] if bias is None else [tape.lower(bias)]
    out = tape.new(numel or rows * (weight.numel // (x.numel // rows)), x.width)
    sizes = [(each.numel, each.width, each.node is not None) for each in (x, weight, *biases)]
    saved = (x.data() if weight.node else None, weight.data() if x.node else None)

    def backward(_: Given) -> Gradients:
        return [tape.new(numel, width) if wanted else None for numel, width, wanted in sizes]

    return tape.operation(out, [x, weight, *biases], backward, saved)


def product(tape: Tape, a: SizedTensor, b: SizedTensor, numel: int) -> SizedTensor:
    """The matrix product of two tensors, `numel` elements; each is saved for the other's
    gradient.
    """
    a, b = tape.lower(a), tape.lower(b)
    sizes = [(each.numel, each.width, each.node is not None) for each in (a, b)]
    saved = (a.data() if b.node else None, b.data() if a.node else None)

    def backward(_: Given) -> Gradients:
        return [tape.new(size, width) if wanted else None for size, width, wanted in sizes]

    return tape.operation(tape.new(numel, a.width), [a, b], backward, saved)


def multiply(tape: Tape, a: SizedTensor, b: SizedTensor) -> SizedTensor:
    """a * b, the smaller one broadcast; each is saved for the other's gradient."""
    width, numel = max(a.width, b.width), max(a.numel, b.numel)
    sizes = [(each.numel, each.node is not None) for each in (a, b)]

    def backward(_: Given) -> Gradients:
        gradients: Gradients = [tape.new(numel, width) if wanted else None for _, wanted in sizes]
        for index, (own, wanted) in enumerate(sizes):
            if wanted and own != numel:
                gradients[index] = tape.new(own, width)
        return gradients

    saved = (a.data() if b.node else None, b.data() if a.node else None)
    return tape.operation(tape.new(numel, width), [a, b], backward, saved)


def function(
    tape: Tape, x: SizedTensor, *, saves: bool = True, temporaries: int = 0
) -> SizedTensor:
    """f(x) of one input, which it saves by default; `temporaries` of its size on the way
    back.
    """
    numel, width = x.numel, x.width

    def backward(_: Given) -> Gradients:
        between = [tape.new(numel, width) for _ in range(temporaries)]
        gradients: Gradients = [tape.new(numel, width)]
        between.clear()
        return gradients

    return tape.operation(tape.new(numel, width), [x], backward, [x.data()] if saves else [])


def scaled(tape: Tape, x: SizedTensor) -> SizedTensor:
    """x times, or plus, a number."""
    return function(tape, x, saves=False)


def power(tape: Tape, x: SizedTensor) -> SizedTensor:
    """x ** n; the derivative is made in three pieces."""
    return function(tape, tape.raised(x), temporaries=2)


def tanh(tape: Tape, x: SizedTensor) -> SizedTensor:
    """tanh saves its result."""
    out, numel, width = tape.new(x.numel, x.width), x.numel, x.width
    return tape.operation(out, [x], lambda _: [tape.new(numel, width)], [out.data()])


def add(tape: Tape, a: SizedTensor, b: SizedTensor) -> SizedTensor:
    """a + b: one gradient serves both."""

    def backward(given: Given) -> Gradients:
        gradient = given.pop()
        return [gradient, gradient]

    return tape.operation(tape.new(max(a.numel, b.numel), max(a.width, b.width)), [a, b], backward)


def shifted(tape: Tape, x: SizedTensor, bias: SizedTensor) -> SizedTensor:
    """x plus a trained bias of each channel."""
    own = bias.numel, bias.width

    def backward(given: Given) -> Gradients:
        return [given.pop(), tape.new(*own)]

    return tape.operation(tape.new(x.numel, max(x.width, bias.width)), [x, bias], backward)


def joined(tape: Tape, parts: list[SizedTensor], numel: int) -> SizedTensor:
    """torch.cat of parts, expanded or not, to `numel` elements; gradients of parts are views."""
    sizes = [part.numel for part in parts]

    def backward(given: Given) -> Gradients:
        whole = given.pop()
        return [SizedTensor(size, whole.width, whole.storage) for size in sizes]

    return tape.operation(tape.new(numel, max(part.width for part in parts)), parts, backward)


def mean(tape: Tape, x: SizedTensor, means: int) -> SizedTensor:
    """So many means of parts of x: over the channels of every row, or over neighbouring rows."""
    numel, width = x.numel, x.width
    return tape.operation(tape.new(means, width), [x], lambda _: [tape.new(numel, width)])


def dropout(tape: Tape, x: SizedTensor) -> SizedTensor:
    """Dropout that is on: its mask takes a byte per element."""
    numel, width = x.numel, x.width
    out, mask = tape.new(numel, width), tape.new(numel, 1)
    return tape.operation(out, [x], lambda _: [tape.new(numel, width)], [mask])


def rms_norm(tape: Tape, x: SizedTensor, weight: SizedTensor, rows: int) -> SizedTensor:
    """transformers' LlamaRMSNorm, operation by operation."""
    width = x.width
    x = tape.cast(x, SINGLE)
    inverse = function(tape, mean(tape, power(tape, x), rows))
    x = multiply(tape, x, inverse)
    return multiply(tape, weight, tape.cast(x, width))


def layer_norm(tape: Tape, x: SizedTensor, weights: list[SizedTensor], rows: int) -> SizedTensor:
    """torch's LayerNorm; it saves mean and deviation of every row."""
    x = tape.raised(x)
    weights = [tape.raised(each) for each in weights]
    sizes = [(each.numel, each.width, each.node is not None) for each in (x, *weights)]

    def backward(_: Given) -> Gradients:
        return [tape.new(numel, width) if wanted else None for numel, width, wanted in sizes]

    out, statistics = tape.new(x.numel, x.width), tape.new(2 * rows, SINGLE)
    return tape.operation(out, [x, *weights], backward, [x.data(), statistics])


def rotary(tape: Tape, x: SizedTensor, width: int) -> SizedTensor:
    """Rotary embedding of query or key with cosines of `width` bytes: x * cos + rotate_half(x) *
    sin.
    """
    numel, own = x.numel, x.width
    wide = max(own, width)
    first = tape.new(numel, wide)
    rotated = _joined(tape, numel, own)
    second = tape.new(numel, wide)
    del rotated
    out = tape.new(numel, wide)
    del first, second

    def backward(_: Given) -> Gradients:
        pieces = [tape.new(numel, own) for _ in range(3)]
        gradients: Gradients = [tape.new(numel, own)]
        pieces.clear()
        return gradients

    return tape.operation(out, [x], backward)


def _joined(tape: Tape, numel: int, width: int) -> SizedTensor:
    """torch.cat of a negated half and the other half."""
    negated = tape.new(numel // 2, width)
    out = tape.new(numel, width)
    del negated
    return out


def gather(tape: Tape, x: SizedTensor, numel: int) -> SizedTensor:
    """Rows of x by index; the gradient fills a tensor of x's size."""
    whole, width = x.numel, x.width
    return tape.operation(tape.new(numel, width), [x], lambda _: [tape.new(whole, width)])


def put(tape: Tape, x: SizedTensor, values: SizedTensor) -> SizedTensor:
    """A copy of x with some rows replaced."""
    sizes = [(each.numel, each.width, each.node is not None) for each in (x, values)]

    def backward(_: Given) -> Gradients:
        return [tape.new(numel, width) if wanted else None for numel, width, wanted in sizes]

    return tape.operation(tape.new(x.numel, x.width), [x, values], backward)


def checkpoint(
    tape: Tape, block: Callable[[SizedTensor], SizedTensor], x: SizedTensor, *, ahead: int = 0
) -> SizedTensor:
    """A block that keeps its input alone and runs again on the way back (torch.utils.checkpoint,
    not re-entrant).

    It runs again when the first saved tensor is asked for; `ahead` elements of gradients are there
    by then.
    """
    tape.recording, before = False, tape.recording
    out = block(x)
    tape.recording = before

    def backward(given: Given) -> Gradients:
        found: Gradients = []
        early = tape.new(ahead, given[0].width)
        again = block(tape.leaf(x, found.append))
        del early
        again.storage = None
        tape.leave_autocast()
        tape.backward(again, given.pop(), unpacked=True)
        return found

    return tape.operation(out, [x], backward, [x.data()])
