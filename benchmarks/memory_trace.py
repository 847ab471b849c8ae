"""Traces the memory of densekit's own training step on fake tensors: its modules, its engine, its
optimizer.

FakeTensorMode runs every operation without data, so that a model of any size can be traced on a
small machine; MemTracker counts what is allocated. Nothing is computed by formula here, with two
stand-ins for what a GPU does otherwise (`like_cuda`), and one for DeepSpeed, which does not run on
fake tensors: `HalfEngine` keeps what ZeRO keeps on one rank without its buffers.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker, _MemRefType
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.weak import WeakIdKeyDictionary
from transformers import (
    CLIPVisionConfig,
    ConvNextConfig,
    LlamaConfig,
    PhiConfig,
    SiglipVisionConfig,
)

from densekit.model.config import DenseConnectorConfig
from densekit.model.micro_batch import MicroBatch
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.planner.workload import MicroBatchShape
from densekit.spec.architectures import LanguageShape, ModelShape, TowerShape
from densekit.spec.connector import Connector
from densekit.spec.execution import Execution
from densekit.spec.math import Lora, Optimizer
from densekit.spec.trained_model import TrainedModel
from densekit.train.engines.base import Engine, OptimizerStep
from densekit.train.engines.ddp import ReplicatedEngine
from densekit.train.engines.process_group import make_accelerator
from densekit.train.lora import add_lora

OPTIMIZER = Optimizer(learning_rate=2e-5)
LORA_DROPOUT = 0.05


class PhaseTracker(MemTracker):
    """MemTracker that keeps the highest total of every phase of a step.

    Its own peaks of every module cost minutes in a deep model, and it cannot hook frozen
    parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase = "start"
        self.begun: dict[str, dict[str, int]] = {}
        self.peaks: dict[str, int] = {}
        self.hooked = WeakIdKeyDictionary()

    def begin(self, phase: str) -> None:
        """Later peaks belong to `phase`."""
        self.phase = phase
        self.begun.setdefault(phase, self.alive())
        self._update_peak_stats(None)

    def alive(self) -> dict[str, int]:
        """Bytes allocated now, by MemTracker's kinds."""
        kinds: dict[str, int] = {}
        for snapshot in self.get_tracker_snapshot().values():
            for kind, size in snapshot.items():
                kinds[str(getattr(kind, "value", kind))] = size
        return kinds

    def _update_peak_stats(self, peak_state: Any) -> None:
        total = sum(snapshot["Total"] for snapshot in self._curr_mem_snap.values())
        self.peaks[self.phase] = max(total, self.peaks.get(self.phase, 0))

    def _track_module_params_and_buffers(
        self, module: nn.Module, install_grad_hooks: bool = True
    ) -> tuple[int, int]:
        sizes = super()._track_module_params_and_buffers(module, install_grad_hooks=False)
        for parameter in module.parameters():
            if install_grad_hooks and parameter.requires_grad and parameter not in self.hooked:
                self.hooked[parameter] = parameter.register_post_accumulate_grad_hook(
                    self._found_gradient
                )
        return sizes

    def _found_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self._update_and_maybe_create_winfos(parameter.grad, _MemRefType.GRAD)


class HalfEngine(ReplicatedEngine):
    """What ZeRO keeps on one rank: weights in half precision, fp32 master weights, gradients taken
    away at once and added up in fp32.
    """

    def _prepare(self, part: nn.Module) -> nn.Module:
        self.masters = [
            nn.Parameter(parameter.detach().float()) for parameter in self.trainable.values()
        ]
        for parameter, master in zip(self.trainable.values(), self.masters, strict=True):
            master.grad = torch.zeros_like(master)
            parameter.register_post_accumulate_grad_hook(self._added(master))
        self.optimizer = AdamW(self.masters, lr=OPTIMIZER.learning_rate)
        for master in self.masters:
            self.optimizer.state[master] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(master),
                "exp_avg_sq": torch.zeros_like(master),
            }
        return part

    @staticmethod
    def _added(master: nn.Parameter) -> Any:
        def add(parameter: Tensor) -> None:
            assert master.grad is not None and parameter.grad is not None
            master.grad.add_(parameter.grad)
            parameter.grad = None

        return add

    def _loss(
        self, micro_batch: MicroBatch, dense_features: Tensor, windows: Tensor | None
    ) -> Tensor:
        return Engine._loss(self, micro_batch, dense_features, windows)

    def _backward(self, loss: Tensor) -> None:
        loss.backward()

    @torch.no_grad()
    def optimizer_step(self, lr_factor: float) -> OptimizerStep:
        self.optimizer.step()
        for parameter, master in zip(self.trainable.values(), self.masters, strict=True):
            parameter.copy_(master)
        return OptimizerStep(grad_norm=None, overflow=False)


def language_config(shape: LanguageShape) -> LlamaConfig | PhiConfig:
    """transformers' configuration of a shape."""
    common: dict[str, Any] = {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": shape.tied,
    }
    if shape.parallel:
        # Phi-2's published config.json.
        return PhiConfig(
            **common,
            resid_pdrop=0.1,
            hidden_act="gelu_new",
            partial_rotary_factor=0.4,  # type: ignore[call-arg]
        )
    return LlamaConfig(**common, head_dim=shape.head_dim)


def tower_config(shape: TowerShape) -> CLIPVisionConfig | SiglipVisionConfig:
    """transformers' configuration of a tower; its defaults have each kind's activation function."""
    kind = CLIPVisionConfig if shape.has_cls else SiglipVisionConfig
    return kind(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        image_size=shape.image_size,
        patch_size=shape.patch_size,
    )


def conv_config(shape: ModelShape) -> ConvNextConfig | None:
    """transformers' configuration of the second tower, where there is one."""
    conv = shape.high_resolution
    if conv is None:
        return None
    return ConvNextConfig(
        hidden_sizes=[*conv.widths], depths=[*conv.depths], num_stages=len(conv.depths)
    )


def build(trained: TrainedModel, connector: Connector) -> DenseConnectorForConditionalGeneration:
    """The model on the meta device, with gradients where they are wanted."""
    shape, anyres = trained.shape, trained.shape.connector.layout.anyres
    config = DenseConnectorConfig(
        text_config=language_config(shape.language),
        vision_config=tower_config(shape.tower),
        high_resolution_config=conv_config(shape),
        connector=connector.model_dump(mode="json"),
        anyres=None if anyres is None else anyres.model_dump(mode="json"),
    )
    with torch.device("meta"):
        model = DenseConnectorForConditionalGeneration(config)
        if trained.trains == "lora":
            r = trained.lora_r
            add_lora(model, Lora(r=r, alpha=2 * r, dropout=LORA_DROPOUT))
    model.vision_tower.requires_grad_(False)
    if model.high_resolution_tower is not None:
        model.high_resolution_tower.requires_grad_(False)
    if trained.trains_tower:
        model.train_tower()
    if trained.trains == "connector":
        model.language_model.requires_grad_(False)
        if model.image_newline is not None:
            model.image_newline.requires_grad_(False)
    return model.train()


def fake_weights(module: nn.Module, execution: Execution) -> None:
    """Replace every weight by a fake one, in the dtype that the engine gives it; call it under
    FakeTensorMode.
    """
    half = torch.float32 if execution.dtype == "fp32" else torch.bfloat16
    seen: dict[int, nn.Parameter] = {}
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in seen:
                whole = parameter.requires_grad and not execution.zero_stage
                data = torch.empty(parameter.shape, dtype=torch.float32 if whole else half)
                seen[id(parameter)] = nn.Parameter(data, requires_grad=parameter.requires_grad)
            owner._parameters[name] = seen[id(parameter)]
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                owner._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


class Starts:
    """cu_seqlens of a micro-batch: the one tensor whose values are read."""

    def __init__(self, size: MicroBatchShape) -> None:
        self.values = [
            round(size.tokens * number / size.samples) for number in range(size.samples + 1)
        ]

    def tolist(self) -> list[int]:
        """As Tensor.tolist."""
        return self.values


def micro_batch_inputs(shape: ModelShape, size: MicroBatchShape) -> tuple[MicroBatch, Tensor]:
    """A micro-batch of this size, as densekit.train.collate makes it, and its normalised images."""
    slots = min(size.images * shape.image_tokens, size.tokens)
    pixels = shape.pixels
    starts: Any = Starts(size)
    micro_batch = MicroBatch(
        input_ids=torch.zeros(size.tokens, dtype=torch.long),
        position_ids=torch.zeros(size.tokens, dtype=torch.long),
        cu_seqlens=starts,
        pixels=torch.zeros(0, 3, pixels, pixels, dtype=torch.uint8),
        image_slots=torch.zeros(slots, dtype=torch.long),
        feature_index=torch.zeros(slots, dtype=torch.long),
        label_positions=torch.zeros(size.label_positions, dtype=torch.long),
        targets=torch.zeros(size.label_positions, dtype=torch.long),
        weights=torch.zeros(size.label_positions),
    )
    return micro_batch, torch.zeros(size.images * shape.connector.views, 3, pixels, pixels)


@contextmanager
def like_cuda() -> Iterator[None]:
    """On the CPU, keep what a GPU keeps: autocast's fp32 operations, and one byte per element of a
    dropout mask.

    Of the operations that autocast runs in fp32 on CUDA and not on the CPU, these models call pow
    and layer_norm.
    """
    power, layer_norm = torch.pow, F.layer_norm

    def raised(value: Any) -> Any:
        half = (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and torch.is_autocast_enabled("cpu")
        )
        return value.float() if half else value

    def dropout(
        tensor: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        return torch.native_dropout(tensor, p, True)[0] if training and p else tensor

    with (
        mock.patch.object(torch, "pow", lambda value, exponent: power(raised(value), exponent)),
        mock.patch.object(
            F,
            "layer_norm",
            lambda x, shape, w, b, eps: layer_norm(raised(x), shape, raised(w), raised(b), eps),
        ),
        mock.patch.object(F, "dropout", dropout),
    ):
        yield


def watch(engine: Engine, tracker: PhaseTracker) -> None:
    """Tell the tracker where the phases of a step begin."""
    model = engine.model
    if model.trainable_part.vision_tower is not None:
        # Its pass belongs to the forward pass; the way back to it begins at its features.
        given = model.trainable_part.encode
        assert given is not None

        def with_graph(pixels: Tensor) -> Tensor:
            tracker.begin("forward pass")
            features = given(pixels)
            features.register_hook(marked("backward pass of the tower"))
            return features

        model.trainable_part.encode = with_graph
    encode, windows_of, backward = model.encode_images, model.windows_of, engine._backward
    dense = model._dense_features

    def passed(views: Tensor) -> Tensor:
        tracker.reset_mod_stats()  # it refuses a module's second pass
        return dense(views)

    model._dense_features = passed  # type: ignore[method-assign, assignment]
    decoder = model.language_model.model
    norm = decoder.final_layernorm if hasattr(decoder, "final_layernorm") else decoder.norm

    def encoded(pixels: Tensor) -> Tensor:
        tracker.begin("tower")
        features = encode(pixels)
        if model.high_resolution_tower is None:
            tracker.begin("forward pass")
        return features

    def mined(pixels: Tensor) -> Tensor | None:
        tracker.begin("tower")
        windows = windows_of(pixels)
        tracker.begin("forward pass")
        return windows

    def went_back(loss: Tensor) -> None:
        tracker.begin("backward pass of the loss")
        backward(loss)

    def marked(phase: str) -> Any:
        return lambda _: tracker.begin(phase)

    model.encode_images = encoded  # type: ignore[assignment, method-assign]
    engine._backward = went_back  # type: ignore[method-assign]
    if model.high_resolution_tower is not None:
        model.windows_of = mined  # type: ignore[assignment, method-assign]
    decoder.layers[0].register_forward_pre_hook(
        lambda _, args: args[0].register_hook(marked("backward pass of the connector")) and None
    )
    norm.register_forward_pre_hook(
        lambda _, args: args[0].register_hook(marked("backward pass of the layers")) and None
    )
    model.language_model.lm_head.register_forward_pre_hook(lambda *_: tracker.begin("loss"))


def trace(
    trained: TrainedModel, connector: Connector, execution: Execution, size: MicroBatchShape
) -> PhaseTracker:
    """One step of one micro-batch: forward, backward, update. exp_avg and exp_avg_sq are there
    already, as from the second step on.
    """
    model = build(trained, connector)
    replicated = execution.model_copy(update={"zero_stage": 0})
    accelerator = make_accelerator(replicated)
    engine_class = HalfEngine if execution.zero_stage else ReplicatedEngine
    # Weights are made in the engine's dtype, and fake ones cannot be moved.
    still = mock.patch.object(nn.Module, "to", lambda self, *_, **__: self)
    tracker = PhaseTracker()
    with FakeTensorMode(allow_non_fake_inputs=True), still, like_cuda():
        fake_weights(model, execution)
        engine = engine_class(model, OPTIMIZER, accelerator, replicated)
        for group in engine.optimizer.param_groups:
            group["foreach"] = True  # as torch chooses on CUDA
        masters = getattr(engine, "masters", [])
        if not masters:
            list(engine.shards())
        micro_batch, pixel_values = micro_batch_inputs(trained.shape, size)
        tensors = [value for value in vars(micro_batch).values() if isinstance(value, Tensor)]
        tensors.append(pixel_values)
        tracker.track_external(
            model, engine.optimizer, *masters, *(master.grad for master in masters), *tensors
        )
        watch(engine, tracker)
        with tracker:
            tracker.begin("start")
            engine.forward_backward(micro_batch, pixel_values, last=True)
            del micro_batch, pixel_values, tensors
            gc.collect()
            tracker.begin("update")
            try:
                engine.optimizer_step(1.0)
            except DataDependentOutputException:
                # A fake norm has no value to report. It is asked for last: everything else is done.
                if any(parameter.grad is not None for parameter in engine.trainable.values()):
                    raise
            tracker.begin("end")
    return tracker
