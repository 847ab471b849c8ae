"""One micro-batch through densekit's model, on a tape of sizes: connector, decoder layers, head
and loss.

Local variables live as long as in the code that is followed (densekit.model.vlm, transformers'
Llama and Phi, peft's Linear), since a tensor does.
"""

from collections.abc import Callable

from densekit.planner.memory_trace.autograd import (
    SINGLE,
    Given,
    Gradients,
    Meter,
    SizedTensor,
    Tape,
)
from densekit.planner.memory_trace.connector import learned
from densekit.planner.memory_trace.mining import mined
from densekit.planner.memory_trace.operations import (
    add,
    checkpoint,
    dropout,
    function,
    gather,
    joined,
    layer_norm,
    linear,
    mean,
    multiply,
    power,
    put,
    rms_norm,
    rotary,
    scaled,
    tanh,
)
from densekit.planner.memory_trace.tower import TracedTower
from densekit.spec.connector import BLOCK
from densekit.spec.execution import Execution
from densekit.spec.trained_model import TrainedModel
from densekit.spec.types import DTYPE_BYTES

LANGUAGE, LOGITS, GRADIENTS = "language model", "logits", "gradients"
KEPT = "activations kept up to the loss"
"""A phase of no length: what is there when lm_head begins."""


class TracedStep:
    """Forward and backward pass of one micro-batch through `layers` decoder layers.

    ReplicatedEngine keeps trained weights in fp32, and autocast casts them; under ZeRO everything
    is of the dtype. `accumulates`: gradients are taken out of the way at once, because the step
    has other micro-batches; else they stay where autograd leaves them.
    """

    def __init__(
        self,
        model: TrainedModel,
        execution: Execution,
        meter: Meter,
        *,
        layers: int,
        accumulates: bool,
    ) -> None:
        self.model, self.execution, self.layers = model, execution, layers
        self.shape, self.language = model.shape, model.shape.language
        replicated = execution.zero_stage == 0
        self.keeps_gradients = replicated and not accumulates
        self.half = DTYPE_BYTES[execution.dtype]
        self.trained = SINGLE if replicated else self.half
        self.meter = meter
        self.tape = Tape(meter, autocast=replicated and self.half != SINGLE)
        self.gradients: list[SizedTensor] = []
        self.leaves: list[SizedTensor] = []

    def run(self, tokens: int, images: int, label_positions: int) -> None:
        """One micro-batch; the meter then has snapshots under the names of the phases."""
        self.tokens, self.label_positions = tokens, label_positions
        self.meter.begin("forward pass", LANGUAGE)
        hidden = embeddings = self._mark(self._embedded(images), "the connector")
        # Cosines and sines.
        angles = self.tape.new(2 * tokens * self.language.head_dim, hidden.width)
        for number in range(self.layers):
            hidden = self._mark(self._layer(hidden), f"layer {number}")
        hidden = self._normed(hidden)
        logits = self._logits(hidden)
        del hidden
        loss = _cross_entropy(self.tape, logits)
        del logits, embeddings
        self.tape.leave_autocast()
        self.meter.begin("backward pass of the loss", LOGITS)
        self.tape.backward(loss, self.tape.new(1, SINGLE))
        del angles

    def _weight(self, numel: int, trained: bool) -> SizedTensor:
        """A parameter; what becomes of its gradient is the engine's."""
        if not trained:
            return SizedTensor(numel, self.half, None)
        return self.tape.leaf(SizedTensor(numel, self.trained, None), self._gradient)

    def _gradient(self, gradient: SizedTensor) -> None:
        if self.keeps_gradients:
            assert gradient.storage is not None
            gradient.storage.move(GRADIENTS)
            self.gradients.append(gradient)

    def _own(self, numel: int) -> SizedTensor:
        """A weight of the language model itself."""
        return self._weight(numel, self.model.trains == "full")

    def _embedded(self, images: int) -> SizedTensor:
        """embed_row: projector, embedding, image features put into their slots."""
        tape, hidden, connector = self.tape, self.language.hidden, self.shape.connector
        n, width = images * connector.projected, connector.width
        x = mined(tape, self.shape, images, self._features(images), self._trained)
        x = learned(tape, self.shape, images, x, self._trained)
        if x.numel > n * width:
            x = mean(tape, x, n * width)
        for inputs in (width, hidden):
            x = linear(
                tape,
                x,
                self._weight(inputs * hidden, True),
                rows=n,
                bias=self._weight(hidden, True),
            )
            x = function(tape, x) if inputs == width else x
        if connector.connector.reduce_tokens == "after_projector":
            x = mean(tape, x, x.numel // BLOCK**2)
        if connector.newline:
            row = self._weight(hidden, self.model.trains != "connector")
            x = joined(tape, [x, tape.cast(row, x.width)], x.numel + hidden)
        n = images * connector.image_tokens
        table = self._own(self.language.vocab * hidden)
        size, type_ = (
            self.tokens * hidden,
            self.trained if self.model.trains == "full" else self.half,
        )
        embedded = tape.operation(
            tape.new(size, type_), [table], lambda _: [tape.new(table.numel, type_)]
        )
        if self.execution.activation_checkpointing:
            # enable_input_require_grads: the embeddings become a leaf, and stay with its gradient.
            embedded = self._wanting(embedded)
        return put(tape, embedded, tape.cast(gather(tape, x, n * hidden), type_))

    def _trained(self, numel: int) -> SizedTensor:
        return self._weight(numel, True)

    def _features(self, images: int) -> SizedTensor:
        """Dense features: of a frozen tower they are counted as the tower's."""
        shape, half = self.shape, self.half
        size = images * shape.connector.features * shape.connector.feature_width
        if not self.model.trains_tower:
            return SizedTensor(size, half, None)
        views = images * shape.connector.views
        pixels = SizedTensor(3 * views * shape.tower.image_size**2, half, None)
        again = self.execution.activation_checkpointing
        tower = TracedTower(self.tape, shape, views, self._trained, checkpointing=again)
        return self._mark(tower.features(pixels), "the tower")

    def _wanting(self, x: SizedTensor) -> SizedTensor:
        """x as a leaf that stays, with its gradient, until the micro-batch is done."""
        if x.node is not None:
            return x
        self.leaves.append(x)
        return self.tape.leaf(x, self.leaves.append)

    def _layer(self, hidden: SizedTensor) -> SizedTensor:
        block: Callable[[SizedTensor], SizedTensor] = (
            self._phi_layer if self.language.parallel else self._llama_layer
        )
        if not self.execution.activation_checkpointing:
            return block(hidden)
        # The last operations of a Llama layer with adapters, which scale and add, save nothing.
        scales_last = self.model.trains == "lora" and not self.language.parallel
        return checkpoint(self.tape, block, hidden, ahead=hidden.numel if scales_last else 0)

    def _mark(self, x: SizedTensor, name: str) -> SizedTensor:
        """x; when the way back comes to it, the phase `name` begins."""

        def backward(given: Given) -> Gradients:
            self.meter.begin(f"backward pass of {name}", LANGUAGE)
            return [given.pop()]

        return self.tape.operation(x.data(), [x], backward)

    def _llama_layer(self, x: SizedTensor) -> SizedTensor:
        tape, hidden = self.tape, self.language.hidden
        residual = x
        x = rms_norm(tape, x, self._own(hidden), self.tokens)
        x = self._attention(x)
        x = add(tape, residual, x)
        residual = x
        x = rms_norm(tape, x, self._own(hidden), self.tokens)
        x = self._swiglu(x)
        return add(tape, residual, x)

    def _phi_layer(self, x: SizedTensor) -> SizedTensor:
        tape, hidden = self.tape, self.language.hidden
        residual = x
        x = layer_norm(tape, x, [self._own(hidden), self._own(hidden)], self.tokens)
        attended = dropout(tape, self._attention(x))
        x = dropout(tape, self._gelu_mlp(x))
        return add(tape, add(tape, attended, x), residual)

    def _attention(self, x: SizedTensor) -> SizedTensor:
        query, key, value = self._linear("q", x), self._linear("k", x), self._linear("v", x)
        cosine = self.trained if self.model.trains == "full" else self.half
        query, key = (rotary(self.tape, each, cosine) for each in (query, key))
        out = self._attend(query, key, value)
        return self._linear("o", out)

    def _attend(self, query: SizedTensor, key: SizedTensor, value: SizedTensor) -> SizedTensor:
        """The kernel saves query, key, value, output and a number per head; SDPA's outputs are
        joined into one tensor.
        """
        tape, attention = self.tape, self.execution.attention
        query, key, value = (tape.lower(each) for each in (query, key, value))
        if attention == "xformers" and key.numel != query.numel:
            key, value = (self._repeated(each, query.numel) for each in (key, value))
        sizes = [(each.numel, each.width) for each in (query, key, value)]
        joined = attention == "sdpa"
        out = tape.new(*sizes[0])
        saved = [
            query.data(),
            key.data(),
            value.data(),
            out.data(),
            tape.new(self.tokens * self.language.heads, SINGLE),
        ]

        def backward(_: Given) -> Gradients:
            workspace = self._workspace(sizes[0][0])
            gradients: Gradients = [tape.new(*each) for each in sizes]
            del workspace
            for index, size in enumerate(sizes if joined else []):
                gradients[index] = tape.new(*size)
            return gradients

        result = tape.new(*sizes[0]) if joined else out
        return tape.operation(result, [query, key, value], backward, saved)

    def _repeated(self, x: SizedTensor, numel: int) -> SizedTensor:
        own, tape = (x.numel, x.width), self.tape
        return tape.operation(tape.new(numel, x.width), [x], lambda _: [tape.new(*own)])

    def _workspace(self, queries: int) -> SizedTensor | None:
        """Flash and cutlass kernels add query gradients up in fp32 (flash-attn 2: dq_accum)."""
        return self.tape.new(queries, SINGLE) if self.execution.device == "cuda" else None

    def _swiglu(self, x: SizedTensor) -> SizedTensor:
        product = multiply(
            self.tape, function(self.tape, self._linear("gate", x)), self._linear("up", x)
        )
        return self._linear("down", product)

    def _gelu_mlp(self, x: SizedTensor) -> SizedTensor:
        """transformers' gelu_new is written out in Python: every step of it is a tensor."""
        x = self._linear("up", x)
        x = self._gelu_new(x)
        return self._linear("down", x)

    def _gelu_new(self, x: SizedTensor) -> SizedTensor:
        tape = self.tape
        return multiply(
            tape,
            scaled(tape, x),
            scaled(tape, tanh(tape, scaled(tape, add(tape, x, scaled(tape, power(tape, x)))))),
        )

    def _linear(self, name: str, x: SizedTensor) -> SizedTensor:
        """A Linear of a layer, with its adapters where LoRA is trained
        (peft.tuners.lora.layer.Linear).
        """
        inputs, outputs = next((i, o) for each, i, o in self.language.linears if each == name)
        bias = self._own(outputs) if self.language.biased else None
        result = linear(self.tape, x, self._own(inputs * outputs), rows=self.tokens, bias=bias)
        if self.model.trains != "lora":
            return result
        tape, r, width = self.tape, self.model.lora_r, result.width
        x = tape.cast(x, self.trained)
        down, up = self._weight(inputs * r, True), self._weight(r * outputs, True)
        low = dropout(tape, x) if self.model.lora_dropout else x
        low = linear(tape, low, down, rows=self.tokens)
        result = add(tape, result, scaled(tape, linear(tape, low, up, rows=self.tokens)))
        return tape.cast(result, width)

    def _normed(self, x: SizedTensor) -> SizedTensor:
        """The norm behind the layers."""
        own = self.language.hidden
        if self.language.parallel:
            return layer_norm(self.tape, x, [self._own(own), self._own(own)], self.tokens)
        return rms_norm(self.tape, x, self._own(own), self.tokens)

    def _logits(self, hidden: SizedTensor) -> SizedTensor:
        """lm_head on the label positions; `hidden` is alive meanwhile."""
        tape, language, rows = self.tape, self.language, self.label_positions
        chosen = gather(tape, hidden, rows * language.hidden)
        self.meter.begin(KEPT, LANGUAGE)
        self.meter.begin("loss", LOGITS)
        bias = self._own(language.vocab) if language.biased else None
        head = self._own(language.vocab * language.hidden)
        return linear(tape, chosen, head, rows=rows, bias=bias)


def _cross_entropy(tape: Tape, logits: SizedTensor) -> SizedTensor:
    """In fp32; log_softmax saves its result, as tanh does. The caller holds the logits."""
    wide = tape.cast(logits, SINGLE)
    probabilities = tanh(tape, wide)
    numel = probabilities.numel
    return tape.operation(tape.new(1, SINGLE), [probabilities], lambda _: [tape.new(numel, SINGLE)])
