"""A trained vision tower on a tape of sizes: its blocks, and the connector's running sums
(densekit.model.towers, densekit.model.connectors).
"""

from collections.abc import Callable

from densekit.planner.memory_trace.autograd import SINGLE, Given, Gradients, SizedTensor, Tape
from densekit.planner.memory_trace.operations import (
    add,
    checkpoint,
    function,
    joined,
    layer_norm,
    linear,
    multiply,
    scaled,
    shifted,
    tanh,
)
from densekit.spec.architectures import ModelShape, TowerShape


class TracedTower:
    """Forward pass of `images` images; `weight` makes a trained parameter of so many elements."""

    def __init__(
        self,
        tape: Tape,
        shape: ModelShape,
        images: int,
        weight: Callable[[int], SizedTensor],
        *,
        checkpointing: bool,
    ) -> None:
        self.tape, self.tower, self.connector = tape, shape.tower, shape.connector
        self.weight, self.images, self.checkpointing = weight, images, checkpointing
        self.rows = images * self.tower.tokens
        self.patches = images * self.tower.patches * self.tower.hidden

    def features(self, pixels: SizedTensor) -> SizedTensor:
        """What the frozen half of the connector hands over, with the tower's history."""
        spec, tape = self.connector.connector, self.tape
        high = self.tower.layers - 1
        kept: dict[int, SizedTensor] = {}
        sums: list[SizedTensor | None] = [None] * len(spec.groups)
        state = self._embedded(pixels)
        for index in range(self.connector.last_layer + 1):
            if index:
                state = self._block(state)
            patches = self._without_cls(state)
            if index == high or index in spec.layers:
                kept[index] = patches
            for number, group in enumerate(spec.groups):
                if index in group:
                    wide, running = tape.cast(patches, SINGLE), sums[number]
                    sums[number] = wide if running is None else add(tape, running, patches)
                    del wide, running
            del patches
        top = kept[high]
        means = [tape.cast(scaled(tape, each), top.width) for each in sums if each is not None]
        sums.clear()
        parts = [top, *means, *(kept[index] for index in spec.layers)]
        numel = self.images * spec.features(self.tower.patches) * self.connector.feature_width
        return joined(tape, parts, numel)

    def _embedded(self, pixels: SizedTensor) -> SizedTensor:
        tower, tape = self.tower, self.tape
        kernel = self.weight(3 * tower.patch_size**2 * tower.hidden)
        x = tape.cast(pixels, kernel.width)
        bias = None if tower.has_cls else self.weight(tower.hidden)
        x = linear(tape, x, kernel, rows=self.images, bias=bias, numel=self.patches)
        if tower.has_cls:
            size = self.rows * tower.hidden
            x = joined(tape, [x, self.weight(tower.hidden)], size)
        x = shifted(tape, x, self.weight(tower.tokens * tower.hidden))
        if tower.has_cls:
            x = layer_norm(tape, x, self._two(tower.hidden), self.rows)
        return x

    def _without_cls(self, state: SizedTensor) -> SizedTensor:
        """A view; the gradient fills a tensor of the state's size."""
        if not self.tower.has_cls:
            return state
        whole, width = state.numel, state.width
        view = SizedTensor(self.patches, width, state.storage)
        return self.tape.operation(view, [state], lambda _: [self.tape.new(whole, width)])

    def _block(self, x: SizedTensor) -> SizedTensor:
        if not self.checkpointing:
            return self._layer(x)
        return checkpoint(self.tape, self._layer, x)

    def _layer(self, x: SizedTensor) -> SizedTensor:
        tape, hidden = self.tape, self.tower.hidden
        residual = x
        x = layer_norm(tape, x, self._two(hidden), self.rows)
        x = add(tape, residual, self._attention(x))
        residual = x
        x = layer_norm(tape, x, self._two(hidden), self.rows)
        return add(tape, residual, self._mlp(x))

    def _attention(self, x: SizedTensor) -> SizedTensor:
        tape, hidden = self.tape, self.tower.hidden
        query, key, value = (self._linear(x, hidden, hidden) for _ in range(3))
        del x
        size, width = query.numel, query.width
        out = tape.new(size, width)
        statistics = tape.new(self.rows * self.tower.heads, SINGLE)
        saved = [query.data(), key.data(), value.data(), out.data(), statistics]

        def backward(_: Given) -> Gradients:
            return [tape.new(size, width) for _ in range(3)]

        out = tape.operation(out, [query, key, value], backward, saved)
        return self._linear(out, hidden, hidden)

    def _mlp(self, x: SizedTensor) -> SizedTensor:
        hidden, inner = self.tower.hidden, self.tower.intermediate
        x = self._linear(x, hidden, inner)
        x = _activation(self.tape, x, self.tower)
        return self._linear(x, inner, hidden)

    def _linear(self, x: SizedTensor, inputs: int, outputs: int) -> SizedTensor:
        weight, bias = self.weight(inputs * outputs), self.weight(outputs)
        return linear(self.tape, x, weight, rows=self.rows, bias=bias)

    def _two(self, hidden: int) -> list[SizedTensor]:
        return [self.weight(hidden), self.weight(hidden)]


def _activation(tape: Tape, x: SizedTensor, tower: TowerShape) -> SizedTensor:
    """CLIP: x * sigmoid(1.702 x), step by step; SigLIP: GELU, which saves its input."""
    if not tower.has_cls:
        return function(tape, x)
    return multiply(tape, x, tanh(tape, scaled(tape, x)))
