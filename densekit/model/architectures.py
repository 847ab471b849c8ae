"""The architecture table: language models that were tried, and what the leak probe says of each.

`densekit architectures` prints it, docs/architectures.md holds it. An entry's configuration is as
small as its class allows; the probe compares loss and gradients with transformers' eager model.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from transformers import AutoConfig

from densekit.model.probe import probe

_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_ALL_HEADS = {name: value for name, value in _SIZES.items() if "key_value" not in name}
_GPT2 = {name: _SIZES[name] for name in ("vocab_size", "pad_token_id", "bos_token_id")}
_WITH_WINDOW = ["sliding_attention", "full_attention"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One line of the table."""

    name: str
    model_type: str
    """As config.json says it."""
    like: str
    """Published models of this architecture."""
    config: dict[str, Any] = field(default_factory=dict)
    """What a small configuration of it says."""

    def problem(self) -> str | None:
        """What the leak probe says; None when it is right."""
        return probe(AutoConfig.for_model(self.model_type, **self.config))


ARCHITECTURES = (
    Architecture(
        name="Llama",
        model_type="llama",
        like="Vicuna, Llama-2, Llama-3, SmolLM2",
        config=_SIZES | {"num_key_value_heads": 4},
    ),
    Architecture(
        name="Llama, grouped KV heads", model_type="llama", like="Llama-3, Yi", config=_SIZES
    ),
    Architecture(
        name="Mistral",
        model_type="mistral",
        like="Mistral-7B v0.2, v0.3",
        config=_SIZES | {"sliding_window": None},
    ),
    Architecture(
        name="Mistral, sliding window",
        model_type="mistral",
        like="Mistral-7B v0.1",
        config=_SIZES | {"sliding_window": 8},
    ),
    Architecture(name="Qwen2", model_type="qwen2", like="Qwen2, Qwen2.5", config=_SIZES),
    Architecture(
        name="Qwen2, sliding window",
        model_type="qwen2",
        like="Qwen2 with `use_sliding_window`",
        config=_SIZES
        | {"use_sliding_window": True, "sliding_window": 8, "layer_types": _WITH_WINDOW},
    ),
    Architecture(name="Qwen3", model_type="qwen3", like="Qwen3", config=_SIZES),
    Architecture(
        name="Phi", model_type="phi", like="Phi-2", config=_SIZES | {"num_key_value_heads": None}
    ),
    Architecture(
        name="Phi-3, sliding window",
        model_type="phi3",
        like="Phi-3-mini",
        config=_SIZES | {"sliding_window": 8},
    ),
    Architecture(name="Gemma", model_type="gemma", like="Gemma-1", config=_SIZES),
    Architecture(name="Gemma-2", model_type="gemma2", like="Gemma-2", config=_SIZES),
    Architecture(
        name="Gemma-3, text only",
        model_type="gemma3_text",
        like="Gemma-3-1B",
        config=_SIZES | {"sliding_window": 8, "layer_types": _WITH_WINDOW},
    ),
    Architecture(name="OLMo-2", model_type="olmo2", like="OLMo-2", config=_SIZES),
    Architecture(name="StableLM", model_type="stablelm", like="StableLM-2", config=_SIZES),
    Architecture(
        name="GPT-2",
        model_type="gpt2",
        like="GPT-2",
        config=_GPT2 | {"n_embd": 64, "n_layer": 2, "n_head": 4},
    ),
    Architecture(
        name="GPT-NeoX",
        model_type="gpt_neox",
        like="Pythia",
        config=_ALL_HEADS,
    ),
    Architecture(
        name="OPT",
        model_type="opt",
        like="OPT",
        config=_ALL_HEADS | {"pad_token_id": 1, "ffn_dim": 96, "word_embed_proj_dim": 64},
    ),
    Architecture(
        name="Mixtral",
        model_type="mixtral",
        like="Mixtral-8x7B",
        config=_SIZES | {"num_local_experts": 4},
    ),
    Architecture(
        name="Bloom",
        model_type="bloom",
        like="Bloom",
        config=_GPT2 | {"hidden_size": 64, "n_layer": 2, "n_head": 4},
    ),
    Architecture(
        name="MPT",
        model_type="mpt",
        like="MPT-7B",
        config={"vocab_size": 128, "d_model": 64, "n_layers": 2, "n_heads": 4},
    ),
    Architecture(
        name="Mamba",
        model_type="mamba",
        like="Mamba",
        config={"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 4},
    ),
)


def page() -> Iterator[str]:
    """The lines of docs/architectures.md."""
    yield from (
        "# Language models that train",
        "",
        "Printed by `densekit architectures`, from small models with drawn weights.",
        "",
        "- **right**: in a packed micro-batch of two sequences, logits and gradients are those of",
        "  transformers' own eager model on each sequence alone, and changing one sequence leaves",
        "  the other one's logits as they are, to the last bit.",
        "- **refused**: `densekit run` refuses it before a run directory exists, with this reason.",
        "",
        "The same check runs on the `config.json` of every language model, in this table or not,",
        "before its first run; its verdict is kept in the cache folder.",
        "A sliding window is kept as `config.json` says it.",
        "",
        "| architecture | model type | models like it | verdict |",
        "|---|---|---|---|",
    )
    for entry in ARCHITECTURES:
        problem = entry.problem()
        verdict = "right" if problem is None else f"refused: {problem}"
        yield f"| {entry.name} | `{entry.model_type}` | {entry.like} | {verdict} |"
