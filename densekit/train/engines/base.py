"""The interface of every engine: forward, backward and the optimizer step on the ranks at hand."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW

from densekit.model.dtypes import TORCH_DTYPES
from densekit.model.micro_batch import MicroBatch
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.spec.execution import Execution
from densekit.spec.math import Optimizer
from densekit.train.shards import Shard


@dataclass(frozen=True, kw_only=True)
class OptimizerStep:
    """What became of a step's gradients."""

    grad_norm: float | Tensor | None
    """L2 norm before clipping, on the device where nobody had to wait for it; None after an
    overflow.
    """
    overflow: bool
    """fp16 only: a gradient was not finite, no weight changed, and the loss scale was lowered."""


class Engine(ABC):
    """Trains `model.trainable_part`; a frozen tower runs outside.

    Micro-batches and ranks *sum*: the loss of a micro-batch carries its token weights.
    """

    replicated: bool
    """Whether every rank holds every shard whole."""
    optimizer: AdamW
    module: Any
    """What is called: the trainable part as the engine wrapped it."""

    def __init__(
        self,
        model: DenseConnectorForConditionalGeneration,
        optimizer_config: Optimizer,
        accelerator: Accelerator,
        execution: Execution,
    ) -> None:
        self.model, self.optimizer_config = model, optimizer_config
        self.accelerator, self.execution = accelerator, execution
        self.device = accelerator.device
        self.rank, self.world_size = accelerator.process_index, accelerator.num_processes
        if model.trainable_part.vision_tower is None:
            model.vision_tower.to(self.device, TORCH_DTYPES[execution.dtype])
        if model.high_resolution_tower is not None:
            model.high_resolution_tower.to(self.device, TORCH_DTYPES[execution.dtype])
        model.use_kernel(execution.attention)
        if execution.activation_checkpointing:
            model.checkpoint_activations()
        part = model.trainable_part
        self.trainable = {name: p for name, p in part.named_parameters() if p.requires_grad}
        self.shapes = {name: self._full_shape(p) for name, p in self.trainable.items()}
        self.module = self._prepare(part)

    def _full_shape(self, parameter: nn.Parameter) -> tuple[int, ...]:
        """The shape of a whole parameter, however it is kept here."""
        return tuple(parameter.shape)

    @abstractmethod
    def _prepare(self, part: nn.Module) -> nn.Module:
        """Wrap the trainable part, make `self.optimizer`; returns what is called."""

    def forward_backward(
        self, micro_batch: MicroBatch, pixel_values: Tensor, *, last: bool
    ) -> Tensor:
        """Add up the gradients of a micro-batch's weighted loss; returns the loss, detached.

        Ranks are summed when `last`, the micro-batch that ends the step.
        """
        dtype = TORCH_DTYPES[self.execution.dtype]
        images = self.model.images_of(self.model.low_resolution(pixel_values).to(dtype))
        windows = self.model.windows_of(pixel_values.to(dtype))
        with self._gradient_sync(last):
            loss = self._loss(micro_batch, images, windows)
            self._backward(loss)
        return loss.detach()

    @abstractmethod
    def _gradient_sync(self, enabled: bool) -> AbstractContextManager[Any]:
        """Whether ranks reduce gradients in the backward pass inside the block (DDP: else
        no_sync).
        """

    def _loss(self, micro_batch: MicroBatch, images: Tensor, windows: Tensor | None) -> Tensor:
        # DDP and ZeRO do not look into a MicroBatch: its cu_seqlens stays on the CPU.
        loss: Tensor = self.module(micro_batch=micro_batch, images=images, windows=windows).loss
        return loss

    @abstractmethod
    def _backward(self, loss: Tensor) -> None:
        """Backward of one micro-batch's loss; ranks sum."""

    @abstractmethod
    def optimizer_step(self, lr_factor: float) -> OptimizerStep:
        """Clip, step AdamW at `lr_factor` times the base rates, and forget the gradients."""

    @abstractmethod
    def shards(self) -> Iterator[Shard]:
        """The master weights and AdamW states this rank holds; states are created (zero) where
        there are none yet.
        """

    @abstractmethod
    def sync_params_from_masters(self) -> None:
        """Make the model compute with the weights that were written into the shards."""

    @abstractmethod
    def full_weight(self, name: str) -> Tensor:
        """The whole fp32 weight of a trainable parameter, on the CPU; every rank must ask."""

    def weights_of(self, part: nn.Module) -> dict[str, Tensor]:
        """All weights of the language model or the tower by name, on the CPU, for saving; every
        rank must ask, rank 0 gets them.
        """
        return {name: value.detach().cpu() for name, value in part.state_dict().items()}

    @property
    @abstractmethod
    def optimizer_steps(self) -> int:
        """AdamW steps taken (an overflow takes none)."""

    @optimizer_steps.setter
    def optimizer_steps(self, number: int) -> None:
        raise NotImplementedError

    @abstractmethod
    def scaler_state(self) -> dict[str, Any] | None:
        """The dynamic loss scale as plain JSON values; None without one."""

    @abstractmethod
    def load_scaler_state(self, state: dict[str, Any]) -> None:
        """Inverse of scaler_state."""
