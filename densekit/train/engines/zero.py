"""DeepSpeed ZeRO-2 and ZeRO-3 behind the same interface as one process."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import deepspeed
import torch
from deepspeed import DeepSpeedEngine
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor, nn

from densekit.model.dtypes import TORCH_DTYPES
from densekit.train.engines import deepspeed_private as private
from densekit.train.engines.base import Engine, OptimizerStep
from densekit.train.optim import make_optimizer, set_learning_rate
from densekit.train.shards import Shard


class ZeroEngine(Engine):
    """ZeRO-2 (gradients and AdamW states sharded) or ZeRO-3 (weights too), through accelerate.

    Source of what is done here and why: docs/engines.md.
    """

    replicated = False

    def _full_shape(self, parameter: nn.Parameter) -> tuple[int, ...]:
        return private.full_shape(parameter)

    def _prepare(self, part: nn.Module) -> nn.Module:
        for parameter in part.parameters():
            parameter.data = parameter.data.to(TORCH_DTYPES[self.execution.dtype])
        # Buffers stay as they are: rotary inv_freq in half precision turns late positions wrong.
        dtypes = {name: buffer.dtype for name, buffer in part.named_buffers()}
        self.optimizer = make_optimizer(part, self.optimizer_config)
        engine, _ = self.accelerator.prepare(part, self.optimizer)
        stage = self.execution.zero_stage
        found = engine.zero_optimization_stage() if isinstance(engine, DeepSpeedEngine) else None
        if found != stage:
            raise RuntimeError(
                f"execution.json asks for DeepSpeed ZeRO-{stage}, accelerate prepared "
                f"{type(engine).__name__}, stage {found}"
            )
        if changed := [n for n, buffer in part.named_buffers() if buffer.dtype != dtypes[n]]:
            raise RuntimeError(f"DeepSpeed cast buffers of the model: {', '.join(changed)}")
        self.zero: Any = engine.optimizer
        offloads = stage == 3 and private.offloads_optimizer(self.zero)
        if offloads != self.execution.cpu_offload:
            raise RuntimeError(
                f"execution.json says cpu_offload {self.execution.cpu_offload}, "
                f"DeepSpeed came up with {offloads}"
            )
        wrapped: nn.Module = engine
        return wrapped

    def _gradient_sync(self, enabled: bool) -> AbstractContextManager[Any]:
        self.module.set_gradient_accumulation_boundary(enabled)
        return nullcontext()

    def _backward(self, loss: Tensor) -> None:
        self.module.backward(loss * self.world_size)  # ZeRO averages over ranks

    def optimizer_step(self, lr_factor: float) -> OptimizerStep:
        set_learning_rate(self.optimizer, lr_factor)
        self.module.step()
        overflow = private.overflowed(self.zero) and self.execution.dtype == "fp16"
        norm = self.module.get_global_grad_norm()
        return OptimizerStep(grad_norm=None if overflow else norm, overflow=overflow)

    def shards(self) -> Iterator[Shard]:
        if self.execution.zero_stage == 3:
            return private.shards_of_zero3(self.zero, self.trainable, rank=self.rank)
        return private.shards_of_zero2(self.zero, self.trainable)

    @torch.no_grad()
    def sync_params_from_masters(self) -> None:
        if self.execution.zero_stage == 3:
            private.sync_zero3(self.zero, self.trainable)
        else:
            private.sync_zero2(self.zero)

    def full_weight(self, name: str) -> Tensor:
        weight: Tensor = safe_get_full_fp32_param(self.trainable[name])
        return weight.detach().cpu()

    def weights_of(self, part: nn.Module) -> dict[str, Tensor]:
        """One parameter is gathered at a time, so that no GPU ever holds the whole model."""
        if self.execution.zero_stage != 3:
            return super().weights_of(part)
        weights: dict[str, Tensor] = {}
        for name, parameter in part.named_parameters(remove_duplicate=False):
            if not hasattr(parameter, "ds_id"):  # of a frozen tower, which is whole on every rank
                weights[name] = parameter.detach().cpu()
                continue
            with deepspeed.zero.GatheredParameters(parameter):
                if self.rank == 0:
                    weights[name] = parameter.detach().cpu().clone()
        if self.rank == 0:
            buffers = dict(part.named_buffers())
            missing = part.state_dict().keys() - weights.keys()
            weights |= {name: buffers[name].cpu() for name in missing}
        return weights

    @property
    def optimizer_steps(self) -> int:
        return max((int(state["step"]) for state in private.adamw_states(self.zero)), default=0)

    @optimizer_steps.setter
    def optimizer_steps(self, number: int) -> None:
        for state in private.adamw_states(self.zero):
            state["step"].fill_(float(number))

    def scaler_state(self) -> dict[str, Any] | None:
        return private.scaler_state(self.zero) if self.execution.dtype == "fp16" else None

    def load_scaler_state(self, state: dict[str, Any]) -> None:
        private.load_scaler_state(self.zero, state)
