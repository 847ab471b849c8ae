"""The real xformers without a GPU: its mask means the same, and the V100's kernel refuses the
device and nothing else.

Run by tests/model/test_kernels.py in a process of its own: the package registers itself in torch,
for good.
"""

import torch
from torch.nn import functional as F
from xformers.ops.fmha import Inputs, cutlass

from densekit.model.packing import PackedSequences
from tests.model.test_kernels import LENGTHS, cu_seqlens, outcome, qkv
from tests.support.kernel_doubles import allowed, bias_of


def check_mask(sequences: PackedSequences, window: int | None) -> None:
    """The mask as a matrix, and SDPA under it against the kernel that goes sequence by sequence."""
    mask = sequences.block_diagonal_causal(window)
    assert mask.q_seqinfo.seqstart.device.type == "cpu"
    total = sum(LENGTHS)
    matrix = mask.materialize((total, total))
    torch.testing.assert_close(matrix, bias_of(allowed(LENGTHS, window), torch.float32))
    inputs = qkv(4)
    output = F.scaled_dot_product_attention(*inputs, attn_mask=matrix).transpose(1, 2)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    found = [output, *torch.autograd.grad((output * weight).sum(), inputs)]
    for ours, theirs in zip(found, outcome("sdpa", inputs, sliding_window=window), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


def check_shapes(sequences: PackedSequences, head_dim: int) -> None:
    """[1, T, H, D] in fp16, KV heads repeated as model/attention/xformers.py does."""
    shape = (1, sum(LENGTHS), 4, head_dim)
    query, key, value = (torch.zeros(shape, dtype=torch.float16) for _ in range(3))
    for window in (None, 3):
        mask = sequences.block_diagonal_causal(window)
        check_operators(Inputs(query=query, key=key, value=value, attn_bias=mask))


def check_operators(inputs: Inputs) -> None:
    """What the V100's kernels say of them."""
    inputs.validate_inputs()
    for operator in (cutlass.FwOp, cutlass.BwOp):
        (reason,) = operator.not_supported_reasons(inputs)
        assert reason.startswith("device=cpu"), reason


if __name__ == "__main__":
    packed = PackedSequences(cu_seqlens(), torch.device("cpu"))
    for width in (None, 3):
        check_mask(packed, width)
    for size in (64, 128):
        check_shapes(packed, size)
    print("checked")
