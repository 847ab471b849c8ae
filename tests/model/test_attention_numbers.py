"""Every kernel that can run here, forward and backward, against its samples one by one.

SDPA on the CPU always; on a CUDA device every kernel that its compute capability and the installed
packages allow.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densekit.errors import UsageError
from densekit.model.attention import KERNELS, require_kernel, try_kernel
from densekit.model.packing import PackedSequences
from densekit.spec.capability import check_gpu
from tests.support.models import NO_IMAGE, micro_batch, small_model
from tests.support.needs import needs

LENGTHS = (37, 1, 150, 64)
HEADS, HEAD_DIM = 8, 128
DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# Relative L2 distance; half precision rounds a value by 2**-9 (bf16) and 2**-12 (fp16), some values
# several times.
TOLERANCE = {"fp32": 1e-5, "bf16": 1e-2, "fp16": 2e-3}
CASES = [
    *(("sdpa", "cpu", dtype) for dtype in DTYPES),
    *(
        pytest.param((kernel, "cuda", dtype), marks=pytest.mark.gpu)
        for kernel in KERNELS
        for dtype in ("bf16", "fp16")
    ),
]


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Any, torch.device, Any]:
    """Kernel, device and dtype; skips, with the reason, what cannot run here."""
    kernel, device, dtype = request.param
    if device == "cuda":
        if not torch.cuda.is_available():
            needs("gpu", "torch sees no CUDA device")
        try:
            require_kernel(kernel)
            check_gpu(torch.cuda.get_device_capability(), dtype, kernel)
            try_kernel(kernel, torch.device(device), DTYPES[dtype])
        except UsageError as error:
            needs("kernel", str(error))
    return kernel, torch.device(device), dtype


def draw(kv_heads: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """query, key, value as transformers hands them over, and what the output is weighed with."""
    generator = torch.Generator().manual_seed(7)
    heads = (HEADS, kv_heads, kv_heads, HEADS)
    drawn = [torch.randn(1, sum(LENGTHS), count, HEAD_DIM, generator=generator) for count in heads]
    return [tensor.to(device, dtype).transpose(1, 2).requires_grad_() for tensor in drawn]


def packed(kernel: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[1, H, T, D] of one micro-batch."""
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    sequences = PackedSequences(cu_seqlens, query.device)
    output, _ = KERNELS[kernel](nn.Module(), query, key, value, None, sequences=sequences)
    return output.transpose(1, 2)


def one_by_one(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same, each sample alone: softmax written out, on copies of its KV heads."""
    outputs = []
    for q, k, v in zip(
        *(tensor.split(LENGTHS, dim=2) for tensor in (query, key, value)), strict=True
    ):
        k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
        later = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).triu(1)
        scores = (q @ k.transpose(2, 3) * HEAD_DIM**-0.5).masked_fill(later, -torch.inf)
        outputs.append(scores.softmax(-1) @ v)
    return torch.cat(outputs, dim=2)


@pytest.mark.parametrize("kv_heads", [8, 2, 1])
def test_packed_attention_equals_its_samples_forward_and_backward(
    case: tuple[Any, torch.device, Any], kv_heads: int
) -> None:
    kernel, device, dtype = case
    *inputs, weight = draw(kv_heads, device, DTYPES[dtype])
    output = packed(kernel, *inputs)
    found = [output, *torch.autograd.grad((output * weight).sum(), inputs)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    reference = one_by_one(*exact)
    expected = [reference, *torch.autograd.grad((reference * weight).sum(), exact)]
    assert output.dtype == DTYPES[dtype]
    for name, ours, theirs in zip(("output", "dq", "dk", "dv"), found, expected, strict=True):
        difference = ((ours.double() - theirs).norm() / theirs.norm()).item()
        assert difference <= TOLERANCE[dtype], (name, difference)


def test_nothing_reaches_another_sequence(case: tuple[Any, torch.device, Any]) -> None:
    kernel, device, dtype = case
    *inputs, _ = draw(2, device, DTYPES[dtype])
    edges = (LENGTHS[0], sum(LENGTHS[:3]))
    inside = slice(edges[0], edges[1])
    changed = [tensor.detach().clone() for tensor in inputs]
    for tensor in changed:
        tensor[:, :, inside] += 1
    before, after = packed(kernel, *inputs), packed(kernel, *changed)
    assert not torch.equal(before[:, :, inside], after[:, :, inside])
    for outside in (slice(0, edges[0]), slice(edges[1], None)):
        assert torch.equal(before[:, :, outside], after[:, :, outside])
    for gradient in torch.autograd.grad(before[:, :, inside].sum(), inputs):
        assert gradient[:, :, inside].any()
        assert not gradient[:, :, : edges[0]].any() and not gradient[:, :, edges[1] :].any()


def test_a_model_trains_with_it_under_autocast(case: tuple[Any, torch.device, Any]) -> None:
    """fp32 weights, half-precision compute: loss and gradient beside the same model in fp32 on the
    CPU.
    """
    kernel, device, dtype = case
    batch = micro_batch([7, 1, 12], image_slots=4)
    results = []
    for where, kind, name in ((torch.device("cpu"), "fp32", "sdpa"), (device, dtype, kernel)):
        model = small_model().train().to(where)
        model.use_kernel(name)
        with torch.autocast(where.type, DTYPES[kind], enabled=kind != "fp32"):
            loss = model(batch.to(where), NO_IMAGE.to(where)).loss
        loss.backward()
        flat = torch.cat(
            [
                p.grad.flatten().cpu()
                for p in model.language_model.parameters()
                if p.grad is not None
            ]
        )
        results.append((loss.item(), flat))
    (expected_loss, expected), (loss, found) = results
    assert loss == pytest.approx(expected_loss, rel=TOLERANCE[dtype])
    assert (found - expected).norm() <= 5 * TOLERANCE[dtype] * expected.norm()
