"""LoRA: what is drawn, loaded and saved."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from densekit.errors import DataError
from densekit.parity.case import Recording
from densekit.spec.math import Lora
from densekit.train.lora import add_lora, initial_lora, load_lora, lora_weights, save_lora

LORA = Lora(r=4, alpha=8, dropout=0.0)


def test_saved_adapters_are_what_peft_loads(golden: Path, tmp_path: Path) -> None:
    recording = Recording.read(golden, golden / "clip_dci" / "stage2.json")
    model = _with_lora(recording)
    weights = initial_lora(model, 42)
    generator = torch.Generator().manual_seed(0)
    load_lora(
        model,
        {name: torch.randn(value.shape, generator=generator) for name, value in weights.items()},
    )
    adapters = {name: p for name, p in model.language_model.named_parameters() if "lora_" in name}
    save_lora(model, adapters, LORA, tmp_path / "lora")
    base = AutoModelForCausalLM.from_pretrained(golden / "models" / "llm_tiny", dtype=torch.float32)
    stock = PeftModel.from_pretrained(base, tmp_path / "lora").eval()
    ids = torch.tensor([[1, 15, 200, 31]])
    with torch.no_grad(), model.stock_attention():
        ours = model.language_model.eval()(input_ids=ids).logits
        torch.testing.assert_close(ours, stock(input_ids=ids).logits, atol=1e-5, rtol=0)


def test_initial_adapters_change_nothing_and_depend_on_the_seed_alone(golden: Path) -> None:
    model = _with_lora(Recording.read(golden, golden / "clip_dci" / "stage2.json"))
    first = initial_lora(model, 1)
    torch.manual_seed(77)
    again, other = initial_lora(model, 1), initial_lora(model, 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(not value.any() for name, value in first.items() if "lora_B" in name)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert set(first) == set(lora_weights(model)) and not any("lm_head" in name for name in first)


def test_adapters_of_another_model_are_refused(golden: Path) -> None:
    model = _with_lora(Recording.read(golden, golden / "clip_dci" / "stage2.json"))
    weights = initial_lora(model, 1)
    name = next(iter(weights))
    with pytest.raises(DataError, match="shapes differ"):
        load_lora(model, {**weights, name: torch.zeros(1, 1)})
    with pytest.raises(DataError, match="do not fit"):
        load_lora(model, {"base_model.model.other.lora_A.weight": weights[name]})


def _with_lora(recording: Recording) -> nn.Module:
    projector = load_file(recording.root / "clip_dci" / "projector_after_stage1.safetensors")
    model = recording.model({f"connector.{name}": value for name, value in projector.items()})
    add_lora(model, LORA)
    return model


def test_init_of_another_connector_is_refused(golden: Path) -> None:
    recording = Recording.read(golden, golden / "clip_dci" / "stage1.json")
    sti = load_file(golden / "clip_sti" / "projector_init.safetensors")
    with pytest.raises(DataError, match="do not fit this model"):
        recording.model({f"connector.{name}": value for name, value in sti.items()})
