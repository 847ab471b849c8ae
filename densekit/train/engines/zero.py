"""The DeepSpeed engine: ZeRO-2 and ZeRO-3 behind the same interface as one process."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import deepspeed
import torch
from accelerate import Accelerator
from deepspeed import DeepSpeedEngine
from deepspeed.utils import safe_get_full_fp32_param, safe_get_local_fp32_param
from torch import Tensor, nn
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

from densekit.train.engines.base import Engine, Update
from densekit.train.engines.process_group import TORCH_DTYPES
from densekit.train.optim import make_optimizer, set_learning_rate
from densekit.train.shards import MOMENTS, Fragment


class ZeroEngine(Engine):
    """ZeRO-2 (gradients and moments sharded) or ZeRO-3 (weights too), through accelerate.

    Source of what is done here and why: docs/architecture.md, "Engines".
    """

    replicated = False

    def _prepare(self, connected: nn.Module) -> nn.Module:
        connected.to(TORCH_DTYPES[self.execution.dtype])
        self.optimizer = make_optimizer(connected, self.settings)
        engine, _ = self.accelerator.prepare(connected, self.optimizer)
        stage = self.execution.zero_stage
        if not isinstance(engine, DeepSpeedEngine) or engine.zero_optimization_stage() != stage:
            found = f"{type(engine).__name__}, stage {getattr(engine, 'zero_optimization_stage', lambda: None)()}"
            raise RuntimeError(
                f"the plan asks for DeepSpeed ZeRO-{stage}, accelerate prepared {found}"
            )
        self.zero: Any = engine.optimizer
        offloads = stage == 3 and bool(self.zero.offload_optimizer)
        if offloads != self.execution.cpu_offload:
            raise RuntimeError(
                f"the plan says offload {self.execution.cpu_offload}, DeepSpeed came up with {offloads}"
            )
        return engine

    def _row(self, last: bool) -> AbstractContextManager[Any]:
        self.module.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def _backward(self, loss: Tensor) -> None:
        self.module.backward(loss * self.world_size)  # ZeRO averages over ranks

    def update(self, factor: float) -> Update:
        set_learning_rate(self.optimizer, factor)
        self.module.step()
        overflow = bool(self.zero.overflow) and self.execution.dtype == "fp16"
        norm = self.module.get_global_grad_norm()
        return Update(grad_norm=None if overflow else float(norm), overflow=overflow)

    def fragments(self) -> Iterator[Fragment]:
        return self._fragments3() if self.execution.zero_stage == 3 else self._fragments2()

    def _trainable(self) -> Iterator[tuple[str, Any]]:
        """Names and parameters, with the attributes DeepSpeed puts on them."""
        yield from self.trainable.items()

    def _moments(self, flat: Tensor) -> dict[str, Tensor]:
        """The moments of one flat fp32 partition, created where AdamW has not stepped yet."""
        state = self.zero.optimizer.state[flat]
        for moment in MOMENTS:
            if moment not in state:
                state[moment] = torch.zeros_like(flat)
        state.setdefault("step", torch.tensor(0.0))
        return {moment: state[moment] for moment in MOMENTS}

    def _fragments2(self) -> Iterator[Fragment]:
        names = {id(parameter): name for name, parameter in self.trainable.items()}
        for number, flat in enumerate(self.zero.single_partition_of_fp32_groups):
            moments = self._moments(flat)
            for parameter in self.zero.bit16_groups[number]:
                mapping = parameter._hp_mapping
                if mapping is None:  # no element of it is in this rank's partition
                    continue
                place, length = mapping.hp_fragment_address.start, mapping.hp_fragment_address.numel
                yield Fragment(
                    name=names[id(parameter)],
                    numel=parameter.numel(),
                    start=mapping.lp_fragment_address.start,
                    weight=flat.detach().narrow(0, place, length),
                    **{name: moment.narrow(0, place, length) for name, moment in moments.items()},
                )

    def _fragments3(self) -> Iterator[Fragment]:
        for name, parameter in self._trainable():
            group, offset, padded = self.zero.grad_position[self.zero.get_param_id(parameter)]
            moments = self._moments(self.zero.fp32_partitioned_groups_flat[group])
            start = self.rank * padded
            length = max(0, min(padded, parameter.ds_numel - start))
            if length:  # the last ranks hold nothing but padding of a small parameter
                yield Fragment(
                    name=name,
                    numel=parameter.ds_numel,
                    start=start,
                    weight=safe_get_local_fp32_param(parameter).detach().narrow(0, 0, length),
                    **{key: moment.narrow(0, offset, length) for key, moment in moments.items()},
                )

    @torch.no_grad()
    def publish(self) -> None:
        if self.execution.zero_stage == 2:
            self.zero.update_lp_params()
            return
        self.zero._partition_all_parameters()
        for _, parameter in self._trainable():
            parameter.ds_tensor.copy_(safe_get_local_fp32_param(parameter))
        if self.zero.persistent_parameters:
            self.zero.persistent_parameters[0].all_gather(self.zero.persistent_parameters)

    def full_weight(self, name: str) -> Tensor:
        return safe_get_full_fp32_param(self.trainable[name]).detach().cpu()

    def language_model_weights(self) -> dict[str, Tensor]:
        """One parameter is gathered at a time, so that no GPU ever holds the whole model."""
        if self.execution.zero_stage != 3:
            return super().language_model_weights()
        weights: dict[str, Tensor] = {}
        for name, parameter in self.model.language_model.named_parameters(remove_duplicate=False):
            with deepspeed.zero.GatheredParameters(parameter):
                if self.rank == 0:
                    weights[name] = parameter.detach().cpu().clone()
        if self.rank == 0:
            buffers = self.model.language_model.state_dict().keys() - weights.keys()
            weights |= {
                name: dict(self.model.language_model.named_buffers())[name].cpu()
                for name in buffers
            }
        return weights

    def _states(self) -> list[dict[str, Any]]:
        return list(self.zero.optimizer.state.values())

    @property
    def updates(self) -> int:
        return max((int(state["step"]) for state in self._states()), default=0)

    @updates.setter
    def updates(self, number: int) -> None:
        for state in self._states():
            state["step"].fill_(float(number))

    def scaler_state(self) -> dict[str, Any] | None:
        if self.execution.dtype != "fp16":
            return None
        scaler = self.zero.loss_scaler
        return {name: getattr(scaler, name) for name in SCALER_FIELDS}

    def load_scaler_state(self, state: dict[str, Any]) -> None:
        for name in SCALER_FIELDS:
            setattr(self.zero.loss_scaler, name, state[name])


SCALER_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class partitioned_loading(AbstractContextManager[None]):
    """Inside the block transformers partitions a model over the ranks while it loads it (ZeRO-3)."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.config = accelerator.state.deepspeed_plugin.deepspeed_config

    def __enter__(self) -> None:
        self.alive = HfDeepSpeedConfig(self.config)  # transformers keeps only a weak reference

    def __exit__(self, *_: object) -> None:
        unset_hf_deepspeed_config()
