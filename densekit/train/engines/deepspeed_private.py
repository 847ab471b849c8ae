"""Everything of DeepSpeed that is not its public interface, in one place.

Why at all: DeepSpeed's own checkpoints are pickles that its loader reads without
`weights_only=True`, and its public functions give one whole parameter at a time. A checkpoint of
safetensors at any world size needs the ranks' live partitions: where each lies in its parameter,
and how to make the model compute with what was written into them.

Written for and tested with deepspeed 0.19.8 (tests/train/test_resume.py saves and loads with
ZeRO-2 and ZeRO-3 at several world sizes and compares weights bit by bit). Another version: run
those tests, and look at `runtime/zero/stage_1_and_2.py` and `stage3.py` for these names.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from densekit.train.shards import ADAMW_STATES, Shard

SCALER_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""All that a dynamic loss scaler remembers."""


def disable_shared_memory_collectives() -> None:
    """Keep DeepSpeed from compiling a collective for ranks of one host: gloo does without (weights
    equal to the last bit), and a compiler is needed nowhere else.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def full_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """The shape of a parameter that ZeRO-3 may have partitioned while loading: it then has no
    elements here, and keeps its shape aside.
    """
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def offloads_optimizer(zero: Any) -> bool:
    """Whether a ZeRO-3 optimizer keeps its states in host RAM."""
    return bool(zero.offload_optimizer)


def overflowed(zero: Any) -> bool:
    """Whether the last step found a gradient that is not finite."""
    return bool(zero.overflow)


def adamw_states(zero: Any) -> list[dict[str, Any]]:
    """The states of the AdamW inside, one per flat partition."""
    return list(zero.optimizer.state.values())


def scaler_state(zero: Any) -> dict[str, Any]:
    """The dynamic loss scale as plain values."""
    return {name: getattr(zero.loss_scaler, name) for name in SCALER_FIELDS}


def load_scaler_state(zero: Any, state: Mapping[str, Any]) -> None:
    """Inverse of scaler_state."""
    for name in SCALER_FIELDS:
        setattr(zero.loss_scaler, name, state[name])


def shards_of_zero2(zero: Any, trainable: Mapping[str, Any]) -> Iterator[Shard]:
    """This rank's shards under ZeRO-2: a group's parameters lie in one flat fp32 partition."""
    names = {id(parameter): name for name, parameter in trainable.items()}
    for number, flat in enumerate(zero.single_partition_of_fp32_groups):
        states = _states_of(zero, flat)
        for parameter in zero.bit16_groups[number]:
            mapping = parameter._hp_mapping
            if mapping is None:  # no element of it is in this rank's partition
                continue
            place, length = mapping.hp_fragment_address.start, mapping.hp_fragment_address.numel
            yield Shard(
                name=names[id(parameter)],
                numel=parameter.numel(),
                start=mapping.lp_fragment_address.start,
                weight=flat.detach().narrow(0, place, length),
                **{name: state.narrow(0, place, length) for name, state in states.items()},
            )


def shards_of_zero3(zero: Any, trainable: Mapping[str, Any], *, rank: int) -> Iterator[Shard]:
    """This rank's shards under ZeRO-3: every parameter is cut into as many parts as there are
    ranks, the last ones padded.
    """
    from deepspeed.utils import safe_get_local_fp32_param

    for name, parameter in trainable.items():
        group, offset, padded = zero.grad_position[zero.get_param_id(parameter)]
        states = _states_of(zero, zero.fp32_partitioned_groups_flat[group])
        start = rank * padded
        length = max(0, min(padded, parameter.ds_numel - start))
        if length:  # the last ranks hold nothing but padding of a small parameter
            yield Shard(
                name=name,
                numel=parameter.ds_numel,
                start=start,
                weight=safe_get_local_fp32_param(parameter).detach().narrow(0, 0, length),
                **{key: state.narrow(0, offset, length) for key, state in states.items()},
            )


def _states_of(zero: Any, flat: Tensor) -> dict[str, Tensor]:
    """exp_avg and exp_avg_sq of one flat fp32 partition, made where AdamW has not stepped yet."""
    state = zero.optimizer.state[flat]
    for key in ADAMW_STATES:
        if key not in state:
            state[key] = torch.zeros_like(flat)
    state.setdefault("step", torch.tensor(0.0))
    return {key: state[key] for key in ADAMW_STATES}


def sync_zero2(zero: Any) -> None:
    """Copy the fp32 partitions into the parameters, and gather those over the ranks."""
    zero.update_lp_params()


def sync_zero3(zero: Any, trainable: Mapping[str, Any]) -> None:
    """Copy the fp32 partitions into the parameters' own; small ones, kept whole, are gathered."""
    from deepspeed.utils import safe_get_local_fp32_param

    zero._partition_all_parameters()
    for parameter in trainable.values():
        parameter.ds_tensor.copy_(safe_get_local_fp32_param(parameter))
    if zero.persistent_parameters:
        zero.persistent_parameters[0].all_gather(zero.persistent_parameters)
