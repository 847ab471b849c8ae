"""The adapters of flash-attn and xformers against SDPA: shapes, masks, dtypes and what is made once
per micro-batch.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.masking_utils import sliding_window_causal_mask_function

from densekit.errors import DataError, UsageError
from densekit.model.attention import KERNELS, require_kernel, try_kernel
from densekit.model.micro_batch import MicroBatch
from densekit.model.packing import PackedSequences
from tests.support.kernel_doubles import Seen, allowed, bias_of, dense_attention, install
from tests.support.models import NO_IMAGE, micro_batch, small_model
from tests.support.needs import needs
from tests.support.paths import ROOT

LENGTHS = [7, 1, 12]
PACKAGES = ("flash", "xformers")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Stand-ins for both packages."""
    modules: dict[str, Any] = {}
    found = install(modules)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return found


def cu_seqlens() -> Tensor:
    return torch.tensor([0, *LENGTHS], dtype=torch.int32).cumsum(0, dtype=torch.int32)


def qkv(kv_heads: int = 2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """As transformers hands them over: views of [1, T, heads, D]."""
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(1, sum(LENGTHS), heads, 16, generator=generator, dtype=dtype)
        .transpose(1, 2)
        .requires_grad_()
        for heads in (4, kv_heads, kv_heads)
    ]


def outcome(kernel: str, inputs: list[Tensor], **options: Any) -> list[Tensor]:
    """Output and gradients."""
    sequences = PackedSequences(cu_seqlens(), torch.device("cpu"))
    output, _ = KERNELS[kernel](nn.Module().train(), *inputs, None, sequences=sequences, **options)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    return [output, *torch.autograd.grad((output * weight).sum(), inputs)]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("kernel", PACKAGES)
def test_every_kernel_computes_what_sdpa_does(
    seen: Seen, kernel: str, scaling: float | None, kv_heads: int
) -> None:
    expected = outcome("sdpa", qkv(kv_heads), scaling=scaling)
    found = outcome(kernel, qkv(kv_heads), scaling=scaling)
    assert len(getattr(seen, kernel)) == 1
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("window", [1, 3, 12])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_window_is_counted_as_transformers_counts_it(
    seen: Seen, kernel: str, window: int
) -> None:
    """Beside softmax written out under the mask that transformers makes; 12 is the longest
    sequence.
    """
    inputs = qkv(4)
    found = outcome(kernel, inputs, sliding_window=window)
    see = sliding_window_causal_mask_function(window)
    places = torch.arange(sum(LENGTHS))
    mask = allowed(LENGTHS) & torch.tensor(
        [[bool(see(0, 0, q, k)) for k in places] for q in places]
    )
    q, k, v = (tensor[0].transpose(0, 1) for tensor in inputs)
    output = dense_attention(q, k, v, bias_of(mask, torch.float32), None)[None]
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    expected = [output, *torch.autograd.grad((output * weight).sum(), inputs)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "given",
    [
        {"softcap": 50.0},
        {"s_aux": torch.zeros(4)},
        {"position_bias": torch.zeros(1)},
        {"is_causal": False},
        {"output_attentions": True},
        {"never_heard_of": 0},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_no_kernel_computes_with_is_refused_by_name(
    seen: Seen, kernel: str, given: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=f"Module gives its attention {next(iter(given))}"):
        outcome(kernel, qkv(), **given)
    assert not seen.flash and not seen.xformers


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_does_not_matter_changes_nothing(seen: Seen, kernel: str) -> None:
    harmless = {
        "sliding_window": max(LENGTHS),
        "is_causal": True,
        "position_ids": torch.zeros(1, sum(LENGTHS)),
        "use_cache": False,
        "output_attentions": False,
        "output_router_logits": False,
        "softcap": None,
    }
    for ours, theirs in zip(
        outcome(kernel, qkv(), **harmless), outcome(kernel, qkv()), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_layer_that_is_not_causal_is_refused() -> None:
    module = nn.Module()
    module.is_causal = False
    sequences = PackedSequences(cu_seqlens(), torch.device("cpu"))
    with pytest.raises(DataError, match="is_causal=False"):
        KERNELS["sdpa"](module, *qkv(), None, sequences=sequences)


@pytest.mark.parametrize("kernel", KERNELS)
def test_missing_or_wrong_cu_seqlens_raise(seen: Seen, kernel: str) -> None:
    sequences = PackedSequences(cu_seqlens(), torch.device("cpu"))
    query, key, value = qkv()
    run = KERNELS[kernel]
    with pytest.raises(
        RuntimeError, match="needs the cu_seqlens of a micro-batch and no attention mask"
    ):
        run(nn.Module(), query, key, value, None)
    with pytest.raises(
        RuntimeError, match="needs the cu_seqlens of a micro-batch and no attention mask"
    ):
        run(
            nn.Module(), query, key, value, torch.ones(1, 20, dtype=torch.bool), sequences=sequences
        )
    with pytest.raises(RuntimeError, match="got 1 x 19 tokens, cu_seqlens says 1 x 20"):
        run(
            nn.Module(),
            *(tensor[:, :, 1:] for tensor in (query, key, value)),
            None,
            sequences=sequences,
        )
    with pytest.raises(RuntimeError, match="got 2 x 20 tokens"):
        run(
            nn.Module(),
            *(tensor.expand(2, -1, -1, -1) for tensor in (query, key, value)),
            None,
            sequences=sequences,
        )
    assert not seen.flash and not seen.xformers


def batch() -> MicroBatch:
    return micro_batch(
        LENGTHS,
        label_positions=torch.tensor([4, 5, 9, 17]),
        targets=torch.tensor([1, 2, 3, 4]),
        weights=torch.full((4,), 0.25),
        image_slots=4,
    )


@pytest.mark.parametrize("kernel", PACKAGES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_computes_with_the_kernel_that_was_chosen(
    seen: Seen, kernel: str, checkpointing: bool
) -> None:
    models = [small_model().train() for _ in range(2)]
    models[1].use_kernel(kernel)  # type: ignore[arg-type]
    for model in models:
        if checkpointing:
            model.checkpoint_activations()
        model(batch(), NO_IMAGE).loss.backward()
    called = {name: len(getattr(seen, name)) for name in PACKAGES}
    layers = models[1].config.text_config.num_hidden_layers
    assert called == dict.fromkeys(PACKAGES, 0) | {kernel: layers * (1 + checkpointing)}
    for ours, theirs in zip(models[1].parameters(), models[0].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=2e-6, rtol=1e-4)
    # Made once for the micro-batch, not in every layer.
    assert seen.masks == (kernel == "xformers")
    assert len({id(call["cu"]) for call in seen.flash}) == (kernel == "flash")


def test_cu_seqlens_are_read_once_per_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading lengths in every layer would wait for a GPU that they lie on."""
    reads = []
    real = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: reads.append(tensor.shape) or real(tensor))
    small_model().train()(batch(), NO_IMAGE).loss.backward()
    assert reads == [(len(LENGTHS) + 1,)]


@pytest.mark.parametrize("kernel", PACKAGES)
def test_under_autocast_a_kernel_gets_half_precision_only(seen: Seen, kernel: str) -> None:
    """Rotary embedding gives fp32 queries and keys beside bf16 values there; only torch's own
    attention is cast.
    """
    model = small_model().train()
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(batch(), NO_IMAGE).loss
        model.use_kernel(kernel)  # type: ignore[arg-type]
        found = model(batch(), NO_IMAGE).loss
    found.backward()
    assert {call["dtype"] for call in getattr(seen, kernel)} == {torch.bfloat16}
    assert found.item() == pytest.approx(expected.item(), rel=2e-2)


@pytest.mark.parametrize("kernel", PACKAGES)
def test_dropout_only_in_training(seen: Seen, kernel: str) -> None:
    sequences = PackedSequences(cu_seqlens(), torch.device("cpu"))
    for module in (nn.Module().train(), nn.Module().eval()):
        KERNELS[kernel](module, *qkv(), None, dropout=0.1, sequences=sequences)
    assert [call["dropout"] for call in getattr(seen, kernel)] == [0.1, 0.0]


def test_deterministic_runs_ask_flash_attn_for_a_deterministic_backward(seen: Seen) -> None:
    outcome("flash", qkv())
    torch.use_deterministic_algorithms(True)
    try:
        outcome("flash", qkv())
    finally:
        torch.use_deterministic_algorithms(False)
    assert [call["deterministic"] for call in seen.flash] == [False, True]


@pytest.mark.parametrize("kernel", KERNELS)
def test_generation_goes_back_to_the_kernel(seen: Seen, kernel: Any) -> None:
    model = small_model().eval()
    model.use_kernel(kernel)
    before = model(batch(), NO_IMAGE).loss
    calls = len(seen.flash) + len(seen.xformers)
    model.generate([torch.tensor([3, 4, 5])], max_new_tokens=2)
    assert len(seen.flash) + len(seen.xformers) == calls
    assert model.language_model.config._attn_implementation == KERNELS[kernel].name
    assert model(batch(), NO_IMAGE).loss == before


def test_transformers_takes_no_name_for_its_own() -> None:
    assert not [kernel.name for kernel in KERNELS.values() if "flash" in kernel.name]


@pytest.mark.parametrize(
    ("kernel", "module"), [("flash", "flash_attn"), ("xformers", "xformers.ops")]
)
def test_missing_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, kernel: Any, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module.split(".")[0], None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        UsageError, match=f"{kernel}: {module} cannot be imported.*; install .* image.*sdpa"
    ):
        require_kernel(kernel)
    require_kernel("sdpa")


@pytest.mark.ranks
def test_the_real_xformers_mask_and_shape_rules() -> None:
    place = Path(sys.prefix) / "xformers"  # beside the packages: there it would pass for a kernel
    if not place.is_dir() and find_spec("xformers") is None:
        needs("kernel", f"no xformers; `make setup` puts it into {place} on Linux x86_64")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.real_xformers"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(place)])},
    )
    assert (done.returncode, done.stdout) == (0, "checked\n"), done.stderr


@pytest.mark.parametrize("kernel", ["flash", "xformers"])
def test_a_package_without_machine_code_is_refused(
    monkeypatch: pytest.MonkeyPatch, kernel: Any
) -> None:
    def without_code(*_: Any) -> Any:
        raise ValueError("no operator takes these inputs:\n  not built with CUDA support")

    monkeypatch.setattr(KERNELS[kernel], "attend", without_code)
    with pytest.raises(
        UsageError, match=r"does not compute here \(not built with CUDA support\); install .*sdpa"
    ):
        try_kernel(kernel, torch.device("cpu"), torch.float32)


def test_a_kernel_that_computes_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KERNELS["flash"], "attend", KERNELS["sdpa"].attend)
    try_kernel("flash", torch.device("cpu"), torch.float32)
    try_kernel("sdpa", torch.device("cpu"), torch.float32)
