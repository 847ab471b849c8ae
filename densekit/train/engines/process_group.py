"""The accelerate object and the process group: everything that accelerate or transformers would
decide by themselves, decided here.

Tested with accelerate 1.15.0, transformers 5.23.0 and deepspeed 0.19.8. What is worked around, each
at its place below:

* inherited ACCELERATE_* and DS_* variables change gradient accumulation, engine and precision;
* `Accelerator(cpu=True, deepspeed_plugin=...)` trains plain DDP without a word;
* a DeepSpeed plugin makes transformers partition every model that is built afterwards;
* DDP sorts its buckets anew after a process's first step.

After `prepare` the engines compare what came up with the execution (`ddp.py`, `zero.py`).
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DeepSpeedPlugin, DistributedDataParallelKwargs, PartialState

from densekit.errors import UsageError
from densekit.model.attention import require_kernel, try_kernel
from densekit.model.dtypes import TORCH_DTYPES
from densekit.runs.launch_variables import ACCELERATOR_VARIABLE, clear_inherited
from densekit.spec.capability import check_combination, check_gpu, check_offload
from densekit.spec.deepspeed import BUCKET_ELEMENTS
from densekit.spec.execution import Execution

PERSISTENT_ELEMENTS = 100_000
"""ZeRO-3 keeps smaller parameters (norms) whole on every rank, as by default."""
INITIAL_SCALE_POWER = 16
"""fp16: the loss is first multiplied by 2 ** 16, ..."""
LOSS_SCALE_WINDOW = 1000
"""... and by twice as much after so many optimizer steps without an overflow (as the official
DeepSpeed configs say).
"""


def make_accelerator(execution: Execution, *, max_grad_norm: float | None = None) -> Accelerator:
    """The Accelerator of this process, its process group started (gloo on CPU, NCCL on CUDA).

    `max_grad_norm` goes into the DeepSpeed configuration: ZeRO clips inside its own update. Raises
    UsageError for a device, a dtype or an attention kernel that is not here; nothing else is taken
    instead.
    """
    clear_inherited(keep_ranks=True)
    # Else DeepSpeed looks for one, and warns that it found none.
    os.environ[ACCELERATOR_VARIABLE] = execution.device
    check_combination(execution.device, execution.dtype, execution.attention)
    if execution.device == "cuda":
        _check_cuda(execution)
    check_offload(execution.cpu_offload, execution.zero_stage)
    require_kernel(execution.attention)
    if execution.device == "cuda":
        # The towers too, whose attention is transformers' own; why: model/attention/sdpa.py.
        torch.backends.cuda.enable_cudnn_sdp(False)
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        try_kernel(execution.attention, place, TORCH_DTYPES[execution.dtype])
    if execution.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    on_cpu = execution.device == "cpu"
    if execution.zero_stage == 0:
        # DDP sorts its buckets anew after a process's first step, unless it has to look for unused
        # parameters. With three ranks or more another place in a bucket is another order of
        # summation: a resumed run would show it.
        fixed_buckets = DistributedDataParallelKwargs(find_unused_parameters=True)
        return Accelerator(cpu=on_cpu, kwargs_handlers=[fixed_buckets])
    import deepspeed
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    if on_cpu:
        from densekit.train.engines.deepspeed_private import disable_shared_memory_collectives

        disable_shared_memory_collectives()
    # DeepSpeed's own calls.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    warnings.filterwarnings("ignore", r"barrier\(\): using the device under current context")
    # Accelerator(cpu=True, deepspeed_plugin=...) trains plain DDP without a word: process group and
    # state come first.
    PartialState(cpu=on_cpu)
    deepspeed.init_distributed(dist_backend="gloo" if on_cpu else "nccl")
    config = deepspeed_config(
        execution, world_size=torch.distributed.get_world_size(), max_grad_norm=max_grad_norm
    )
    accelerator = Accelerator(
        deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config, zero3_init_flag=False)
    )
    # accelerate tells transformers to partition whatever it builds, a model on the meta device
    # included; partitioned_loading says when, and for what.
    unset_hf_deepspeed_config()
    return accelerator


@contextmanager
def partitioned_loading(accelerator: Accelerator) -> Iterator[None]:
    """Inside the block transformers partitions a model over the ranks while loading (ZeRO-3)."""
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    # transformers keeps only a weak reference.
    alive = HfDeepSpeedConfig(accelerator.state.deepspeed_plugin.deepspeed_config)
    try:
        yield
    finally:
        del alive
        unset_hf_deepspeed_config()


def deepspeed_config(
    execution: Execution, *, world_size: int, max_grad_norm: float | None
) -> dict[str, Any]:
    """Everything DeepSpeed may decide, decided here: no value is "auto".

    The batch sizes only satisfy its arithmetic: how many micro-batches make a step is said by
    set_gradient_accumulation_boundary. Gradients accumulate and are reduced in fp32 whatever the
    weights are.
    """
    on_gpu = execution.device == "cuda"
    return {
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm or 0.0,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "bf16": {"enabled": execution.dtype == "bf16"},
        "fp16": {
            "enabled": execution.dtype == "fp16",
            "loss_scale": 0,
            "initial_scale_power": INITIAL_SCALE_POWER,
            "loss_scale_window": LOSS_SCALE_WINDOW,
            "hysteresis": 2,
            "min_loss_scale": 1,
        },
        "zero_optimization": {
            "stage": execution.zero_stage,
            "contiguous_gradients": True,
            "overlap_comm": on_gpu,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "allgather_bucket_size": BUCKET_ELEMENTS,
            "stage3_prefetch_bucket_size": BUCKET_ELEMENTS,
            "stage3_param_persistence_threshold": PERSISTENT_ELEMENTS,
            "stage3_gather_16bit_weights_on_model_save": False,
            **(
                {"offload_optimizer": {"device": "cpu", "pin_memory": on_gpu}}
                if execution.cpu_offload
                else {}
            ),
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "wall_clock_breakdown": False,
    }


def _check_cuda(execution: Execution) -> None:
    if not torch.cuda.is_available():
        raise UsageError(
            "--device cuda: torch sees no CUDA device here; check the driver, or use --device cpu"
        )
    line = check_gpu(torch.cuda.get_device_capability(), execution.dtype, execution.attention)
    if os.environ.get("RANK", "0") == "0":
        print(f"{torch.cuda.get_device_name()}: {line}", flush=True)


def devices(accelerator: Accelerator) -> list[dict[str, str | None]]:
    """Name and driver of the GPU this process uses, for the manifest; empty on CPU."""
    if accelerator.device.type != "cuda":
        return []
    version = Path("/proc/driver/nvidia/version")
    driver = version.read_text(encoding="utf-8").splitlines()[0] if version.is_file() else None
    return [{"name": torch.cuda.get_device_name(accelerator.device), "driver": driver}]
