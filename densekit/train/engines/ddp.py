"""One process, or DistributedDataParallel: every rank holds everything whole."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from densekit.model.dtypes import TORCH_DTYPES
from densekit.model.micro_batch import MicroBatch
from densekit.train.engines import process_group
from densekit.train.engines.base import Engine, OptimizerStep
from densekit.train.optim import gradient_norm, make_optimizer, set_learning_rate
from densekit.train.shards import ADAMW_STATES, Shard


class ReplicatedEngine(Engine):
    """Trainable weights in fp32: they are their own masters.

    In bf16 and fp16 frozen weights are kept in that dtype and the forward pass runs under autocast.
    """

    replicated = True

    def _prepare(self, part: nn.Module) -> nn.Module:
        for parameter in part.parameters():
            # Adapters come in the dtype of the weight they sit on.
            wanted = (
                torch.float32 if parameter.requires_grad else TORCH_DTYPES[self.execution.dtype]
            )
            parameter.data = parameter.data.to(wanted)
        part.to(self.device)
        self.optimizer = make_optimizer(part, self.optimizer_config)
        self.scaler = torch.amp.GradScaler(
            self.device.type,
            init_scale=2.0**process_group.INITIAL_SCALE_POWER,
            growth_interval=process_group.LOSS_SCALE_WINDOW,
            enabled=self.execution.dtype == "fp16",
        )
        prepared: nn.Module = self.accelerator.prepare_model(part)
        if isinstance(prepared, DistributedDataParallel) != torch.distributed.is_initialized():
            raise RuntimeError(
                f"execution.json asks for DDP on {self.world_size} ranks, accelerate prepared "
                f"{type(prepared).__name__}"
            )
        if isinstance(prepared, DistributedDataParallel):
            # No buffer changes in training (inv_freq): DDP sent them when it was made, and need not
            # before every forward pass. As an argument torch calls it deprecated.
            prepared.broadcast_buffers = False
        return prepared

    def _gradient_sync(self, enabled: bool) -> AbstractContextManager[Any]:
        return nullcontext() if enabled else self.accelerator.no_sync(self.module)

    def _loss(self, micro_batch: MicroBatch, images: Tensor, windows: Tensor | None) -> Tensor:
        half = self.execution.dtype != "fp32"
        with torch.autocast(self.device.type, TORCH_DTYPES[self.execution.dtype], enabled=half):
            return super()._loss(micro_batch, images, windows)

    def _backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss * self.world_size).backward()  # DDP averages over ranks

    def optimizer_step(self, lr_factor: float) -> OptimizerStep:
        parameters = list(self.trainable.values())
        self.scaler.unscale_(self.optimizer)
        norm = gradient_norm(parameters)
        overflow = self.execution.dtype == "fp16" and not math.isfinite(norm.item())
        limit = self.optimizer_config.max_grad_norm
        if limit is not None and not overflow:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        set_learning_rate(self.optimizer, lr_factor)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return OptimizerStep(grad_norm=None if overflow else norm, overflow=overflow)

    def shards(self) -> Iterator[Shard]:
        for name, parameter in self.trainable.items():
            state = self.optimizer.state[parameter]
            for key in ADAMW_STATES:
                if key not in state:
                    state[key] = torch.zeros_like(parameter)
            state.setdefault("step", torch.tensor(0.0))
            flat = {key: state[key].view(-1) for key in ADAMW_STATES}
            weight = parameter.detach().view(-1)
            yield Shard(name=name, numel=weight.numel(), start=0, weight=weight, **flat)

    def sync_params_from_masters(self) -> None:
        """Nothing to do: the parameters are the masters."""

    def full_weight(self, name: str) -> Tensor:
        return self.trainable[name].detach().cpu()

    @property
    def optimizer_steps(self) -> int:
        return max((int(state["step"]) for state in self.optimizer.state.values()), default=0)

    @optimizer_steps.setter
    def optimizer_steps(self, number: int) -> None:
        for state in self.optimizer.state.values():
            state["step"].fill_(float(number))

    def scaler_state(self) -> dict[str, Any] | None:
        return self.scaler.state_dict() or None

    def load_scaler_state(self, state: dict[str, Any]) -> None:
        self.scaler.load_state_dict(state)
