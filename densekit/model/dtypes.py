"""What weights and activations are computed in, as torch says it."""

import torch

from densekit.spec.types import Dtype

TORCH_DTYPES: dict[Dtype, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
