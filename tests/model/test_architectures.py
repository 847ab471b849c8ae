"""docs/architectures.md says what the leak probe says, for every architecture."""

import pytest
from transformers import AutoConfig

from densekit.model import architectures
from densekit.model.architectures import ARCHITECTURES, Architecture
from densekit.model.attention import sdpa
from densekit.model.probe import probe
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("entry", ARCHITECTURES, ids=lambda entry: entry.name)
def test_the_page_holds_the_verdict(entry: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "ARCHITECTURES", (entry,))
    *text, line = architectures.page()
    assert PAGE[: len(text)] == text
    assert line in PAGE


def test_the_page_lists_every_architecture() -> None:
    assert sum(line.startswith("| ") for line in PAGE) == len(ARCHITECTURES) + 1


def test_a_kernel_that_drops_the_window_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sdpa.attend
    monkeypatch.setattr(sdpa, "attend", lambda *given: real(*given[:-1], None))
    (entry,) = [entry for entry in ARCHITECTURES if entry.name == "Mistral, sliding window"]
    assert "computes something else" in (entry.problem() or "")


def test_a_mixer_between_the_attention_layers_is_noticed() -> None:
    """LFM2's convolution runs on over the end of a sequence."""
    layers = ["conv", "full_attention"]
    config = AutoConfig.for_model("lfm2", layer_types=layers, num_hidden_layers=2)
    assert "see each other" in (probe(config) or "")


def test_a_large_configuration_with_a_window_in_some_layers_is_made_small() -> None:
    config = AutoConfig.for_model(
        "qwen2", use_sliding_window=True, sliding_window=1024, max_window_layers=20
    )
    assert probe(config) is None


def test_what_cannot_be_tried_is_refused() -> None:
    config = AutoConfig.for_model("llama4_text")
    assert "nothing says that it trains right" in (probe(config) or "")


def test_a_model_without_sdpa_attention_is_refused() -> None:
    """It would train, and generate no answer."""
    config = AutoConfig.for_model(
        "gemma2",
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        attn_logit_softcapping=None,
    )
    assert "has no SDPA attention in transformers" in (probe(config) or "")
