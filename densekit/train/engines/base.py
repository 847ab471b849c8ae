"""Engines: how forward, backward and update run on the processes at hand. None of them changes the
math.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.spec.execution import Execution
from densekit.spec.math import Optimizer
from densekit.train.engines import process_group as accelerators
from densekit.train.engines.process_group import TORCH_DTYPES
from densekit.train.optim import gradient_norm, make_optimizer, set_learning_rate
from densekit.train.shards import MOMENTS, Fragment


@dataclass(frozen=True, kw_only=True)
class Update:
    """What became of a step's gradients."""

    grad_norm: float | None
    """L2 norm before clipping; None after an overflow."""
    overflow: bool
    """fp16 only: a gradient was not finite, no weight changed, and the loss scale was lowered."""


class Engine(ABC):
    """Trains the connected language model of `model`; the frozen tower runs outside.

    `settings` is the recipe's `optimizer` section. Rows and ranks *sum*: a row's loss carries its
    token weights.
    """

    replicated: bool
    """Whether every rank holds every fragment whole."""
    optimizer: AdamW
    module: Any
    """What is called: the connected language model as the engine wrapped it."""

    def __init__(
        self,
        model: DenseConnectorForConditionalGeneration,
        settings: Optimizer,
        accelerator: Accelerator,
        execution: Execution,
    ) -> None:
        self.model, self.settings, self.accelerator, self.execution = (
            model,
            settings,
            accelerator,
            execution,
        )
        self.device = accelerator.device
        self.rank, self.world_size = accelerator.process_index, accelerator.num_processes
        model.vision_tower.to(self.device, TORCH_DTYPES[execution.dtype])
        model.use_kernel(execution.attention)
        connected = model.connected().train(model.training)
        if execution.activation_checkpointing:
            model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
            # The row's embeddings need a graph, or nothing inside a checkpointed block would have
            # one (stage 1, LoRA).
            model.language_model.enable_input_require_grads()
        self.trainable = {name: p for name, p in connected.named_parameters() if p.requires_grad}
        # A parameter that ZeRO-3 partitioned while loading has no elements here, and keeps its
        # shape aside.
        self.shapes = {
            name: tuple(getattr(p, "ds_shape", p.shape)) for name, p in self.trainable.items()
        }
        self.module = self._prepare(connected)

    @abstractmethod
    def _prepare(self, connected: nn.Module) -> nn.Module:
        """Wrap the module, make `self.optimizer`; returns what is called."""

    def forward_backward(self, inputs: dict[str, Tensor], *, last: bool) -> Tensor:
        """One row: gradients of its weighted loss are added up; returns the loss, detached.

        Ranks are summed when `last`, the row that ends the step.
        """
        row = dict(inputs)
        pixels = row.pop("pixel_values").to(TORCH_DTYPES[self.execution.dtype])
        features = self.model.encode_images(pixels)
        with self._row(last):
            loss = self._forward(dense_features=features, **row)
            self._backward(loss)
        return loss.detach()

    def _row(self, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of one row."""
        return nullcontext()

    def _forward(self, **row: Any) -> Tensor:
        loss: Tensor = self.module(**row).loss
        return loss

    @abstractmethod
    def _backward(self, loss: Tensor) -> None:
        """Backward of one row's loss; ranks sum."""

    @abstractmethod
    def update(self, factor: float) -> Update:
        """Clip, step AdamW at `factor` times the base rates, and forget the gradients."""

    @abstractmethod
    def fragments(self) -> Iterator[Fragment]:
        """The fp32 weights and moments this rank holds; moments are created (zero) where there are
        none yet.
        """

    @abstractmethod
    def publish(self) -> None:
        """Make the model compute with the weights that were written into the fragments."""

    @abstractmethod
    def full_weight(self, name: str) -> Tensor:
        """The whole fp32 weight of a trainable parameter, on the CPU; every rank must ask."""

    def language_model_weights(self) -> dict[str, Tensor]:
        """All weights of the language model by name, on the CPU, for saving; every rank must ask,
        rank 0 is told.
        """
        return {
            name: value.detach().cpu()
            for name, value in self.model.language_model.state_dict().items()
        }

    @property
    @abstractmethod
    def updates(self) -> int:
        """AdamW steps taken (an overflow takes none)."""

    @updates.setter
    def updates(self, number: int) -> None:
        raise NotImplementedError

    @abstractmethod
    def scaler_state(self) -> dict[str, Any] | None:
        """The dynamic loss scale as plain JSON values; None without one."""

    @abstractmethod
    def load_scaler_state(self, state: dict[str, Any]) -> None:
        """Inverse of scaler_state."""


class ReplicatedEngine(Engine):
    """One process, or DistributedDataParallel: every rank holds weights and moments whole,
    trainable ones in fp32.

    In bf16 and fp16 frozen weights are kept in that type and the forward pass runs under autocast.
    """

    replicated = True

    def _prepare(self, connected: nn.Module) -> nn.Module:
        for parameter in connected.parameters():
            # Adapters come in the type of the weight they sit on.
            wanted = (
                torch.float32 if parameter.requires_grad else TORCH_DTYPES[self.execution.dtype]
            )
            parameter.data = parameter.data.to(wanted)
        connected.to(self.device)
        self.optimizer = make_optimizer(connected, self.settings)
        self.scaler = torch.amp.GradScaler(
            self.device.type,
            init_scale=2.0**accelerators.INITIAL_SCALE_POWER,
            growth_interval=accelerators.LOSS_SCALE_WINDOW,
            enabled=self.execution.dtype == "fp16",
        )
        prepared: nn.Module = self.accelerator.prepare_model(connected)
        if isinstance(prepared, DistributedDataParallel) != torch.distributed.is_initialized():
            raise RuntimeError(
                f"the plan asks for DDP on {self.world_size} ranks, accelerate prepared {type(prepared)}"
            )
        return prepared

    def _row(self, last: bool) -> AbstractContextManager[Any]:
        return self.accelerator.no_sync(self.module) if not last else nullcontext()

    def _forward(self, **row: Any) -> Tensor:
        half = self.execution.dtype != "fp32"
        with torch.autocast(self.device.type, TORCH_DTYPES[self.execution.dtype], enabled=half):
            return super()._forward(**row)

    def _backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss * self.world_size).backward()  # DDP averages over ranks

    def update(self, factor: float) -> Update:
        parameters = list(self.trainable.values())
        self.scaler.unscale_(self.optimizer)
        norm = gradient_norm(parameters)
        overflow = self.execution.dtype == "fp16" and not math.isfinite(norm.item())
        limit = self.settings.max_grad_norm
        if limit is not None and not overflow:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        set_learning_rate(self.optimizer, factor)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return Update(grad_norm=None if overflow else norm.item(), overflow=overflow)

    def fragments(self) -> Iterator[Fragment]:
        for name, parameter in self.trainable.items():
            state = self.optimizer.state[parameter]
            for moment in MOMENTS:
                if moment not in state:
                    state[moment] = torch.zeros_like(parameter)
            state.setdefault("step", torch.tensor(0.0))
            flat = {moment: state[moment].view(-1) for moment in MOMENTS}
            weight = parameter.detach().view(-1)
            yield Fragment(name=name, numel=weight.numel(), start=0, weight=weight, **flat)

    def publish(self) -> None:
        """Nothing to do: the fragments are the weights."""

    def full_weight(self, name: str) -> Tensor:
        return self.trainable[name].detach().cpu()

    @property
    def updates(self) -> int:
        return max((int(state["step"]) for state in self.optimizer.state.values()), default=0)

    @updates.setter
    def updates(self, number: int) -> None:
        for state in self.optimizer.state.values():
            state["step"].fill_(float(number))

    def scaler_state(self) -> dict[str, Any] | None:
        return self.scaler.state_dict() or None

    def load_scaler_state(self, state: dict[str, Any]) -> None:
        self.scaler.load_state_dict(state)


def make_engine(
    model: DenseConnectorForConditionalGeneration,
    settings: Optimizer,
    accelerator: Accelerator,
    execution: Execution,
) -> Engine:
    """The engine that an execution asks for."""
    if execution.zero_stage == 0:
        return ReplicatedEngine(model, settings, accelerator, execution)
    from densekit.train.engines.zero import ZeroEngine

    return ZeroEngine(model, settings, accelerator, execution)
