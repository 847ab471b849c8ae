"""Times the attention kernels of packed micro-batches beside each other: same queries, keys and
values, one process.

Every kernel that can run here takes the same micro-batch, forward and backward, in turns with
the others; `padded` is what packing replaces, one causal SDPA over a right-padded batch of the same
samples. On a CPU that leaves SDPA sequence by sequence. Before anything is timed the outputs and
gradients of the kernels are compared with SDPA's.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from train_step import timed

from densekit.errors import UsageError
from densekit.model.attention import KERNELS, require_kernel, try_kernel
from densekit.model.packing import PackedSequences
from densekit.spec.capability import check_combination, check_gpu, generation_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 4e-3}
"""Relative L2 distance to SDPA; both sides round."""
BASE = "sdpa"


def kernels_here(device: str, dtype: str) -> dict[str, str | None]:
    """Every kernel, with the reason why it cannot run here, or None."""
    reasons: dict[str, str | None] = {}
    for kernel in KERNELS:
        try:
            check_combination(device, dtype, kernel)  # type: ignore[arg-type]
            if device == "cuda":
                check_gpu(torch.cuda.get_device_capability(), dtype, kernel)  # type: ignore[arg-type]
            require_kernel(kernel)
            if device == "cuda":
                try_kernel(kernel, torch.device(device), DTYPES[dtype])
            reasons[kernel] = None
        except UsageError as error:
            reasons[kernel] = str(error)
    return reasons


def draw(
    lengths: list[int], heads: int, kv_heads: int, head_dim: int, device: str, dtype: torch.dtype
) -> list[Tensor]:
    """query, key, value [1, heads, T, D] as transformers hands them over, and a gradient of the
    output.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = [
        torch.randn(1, sum(lengths), n, head_dim, generator=generator)
        for n in (heads, kv_heads, kv_heads, heads)
    ]
    return [tensor.to(device, dtype).transpose(1, 2).requires_grad_() for tensor in drawn]


def packed(kernel: str, inputs: list[Tensor], lengths: list[int]) -> Tensor:
    """[1, H, T, D]; where sequences lie is read each time, as for every micro-batch."""
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    sequences = PackedSequences(cu_seqlens, inputs[0].device)
    query, key, value, *_ = inputs
    attend = KERNELS[kernel]  # type: ignore[index]
    output = attend(nn.Module(), query, key, value, None, sequences=sequences)[0]
    return output.transpose(1, 2)


def padded_batch(tensor: Tensor, lengths: list[int]) -> Tensor:
    """[S, heads, longest, D] from a row."""
    parts = [part[0].transpose(0, 1) for part in tensor.detach().split(lengths, dim=2)]
    return (
        nn.utils.rnn.pad_sequence(parts, batch_first=True)
        .transpose(1, 2)
        .contiguous()
        .requires_grad_()
    )


def step(attention: Callable[[list[Tensor]], Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Output and gradients of query, key and value."""
    output = attention(inputs[:3])
    return [output.detach(), *torch.autograd.grad(output, inputs[:3], inputs[3].detach())]


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest relative L2 distance of output and gradients."""
    pairs = zip(found, expected, strict=True)
    return max(float((a.double() - b.double()).norm() / b.double().norm()) for a, b in pairs)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare and time; plain values for --json. Ratios are to SDPA sequence by sequence."""
    device, dtype = arguments.device, arguments.dtype
    generator = torch.Generator().manual_seed(1)
    shortest = arguments.longest // 4
    drawn = torch.randint(
        shortest, arguments.longest + 1, (arguments.samples,), generator=generator
    )
    lengths = [arguments.longest, *drawn.tolist()[1:]]
    row = draw(
        lengths, arguments.heads, arguments.kv_heads, arguments.head_dim, device, DTYPES[dtype]
    )
    batch = [padded_batch(tensor, lengths) for tensor in row]
    missing = kernels_here(device, dtype)
    sides: dict[str, Callable[[], list[Tensor]]] = {
        kernel: lambda kernel=kernel: step(lambda inputs: packed(kernel, inputs, lengths), row)
        for kernel, reason in missing.items()
        if reason is None
    }
    grouped = arguments.heads != arguments.kv_heads
    sides["padded"] = lambda: step(
        lambda qkv: F.scaled_dot_product_attention(
            qkv[0], qkv[1], qkv[2], is_causal=True, enable_gqa=grouped
        ),
        batch,
    )
    expected = sides[BASE]()
    differences = {
        name: distance(side(), expected) for name, side in sides.items() if name != "padded"
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    where = torch.device(device)
    if device == "cpu":
        torch.set_num_threads(1)  # CPU time is measured
    for side in sides.values():  # warm-up
        timed(side, where)
    for _ in range(arguments.steps):
        for name, side in sides.items():
            times[name].append(timed(side, where))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "heads": arguments.heads,
        "kv_heads": arguments.kv_heads,
        "head_dim": arguments.head_dim,
        "lengths": lengths,
        "steps": arguments.steps,
        "difference": differences,
        "seconds": seconds,
        "ratio": {name: value / seconds[BASE] for name, value in seconds.items()},
        "not_here": {kernel: reason for kernel, reason in missing.items() if reason},
    }


def print_table(result: dict[str, Any]) -> None:
    """The numbers for a reader."""
    print(
        f"{result['device']}, torch {result['torch']}, {result['threads']} threads, "
        f"{result['dtype']}; "
        f"{len(result['lengths'])} samples, {sum(result['lengths'])} tokens, longest "
        f"{max(result['lengths'])}; "
        f"{result['heads']} heads, {result['kv_heads']} KV heads of {result['head_dim']}; forward "
        "and backward"
    )
    print(f"{'kernel':12}{'time':>12}{'ratio':>8}{'difference':>14}")
    for name, seconds in result["seconds"].items():
        difference = result["difference"].get(name)
        told = "-" if difference is None else f"{difference:.1e}"
        print(f"{name:12}{seconds * 1000:>9.1f} ms{result['ratio'][name]:>8.2f}{told:>14}")
    for reason in result["not_here"].values():
        print(f"not run: {reason}")


def main() -> int:
    """Compare, time, print; fail when a kernel computes something else than SDPA."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if on_gpu else "cpu")
    parser.add_argument(
        "--dtype", choices=tuple(DTYPES), help="default: fp32 on a CPU, else what suits the GPU"
    )
    parser.add_argument("--samples", type=int, default=8, help="segments of the row")
    parser.add_argument(
        "--longest", type=int, default=768, help="tokens of the longest segment; the others draw"
    )
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=32)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5, help="timed steps per kernel")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    arguments = parser.parse_args()
    if arguments.dtype is None:
        arguments.dtype = "fp32"
        if arguments.device == "cuda":
            arguments.dtype = generation_of(torch.cuda.get_device_capability()).dtype
    result = run(arguments)
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        print_table(result)
    wrong = {
        name: value
        for name, value in result["difference"].items()
        if not value <= TOLERANCE[result["dtype"]]
    }
    if wrong:
        print(f"not what SDPA computes: {wrong}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
