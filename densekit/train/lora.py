"""LoRA through peft: adapters on every Linear of the language model except lm_head."""

from pathlib import Path

import torch
from peft import (
    LoraConfig,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from torch import Tensor, nn

from densekit.errors import DataError
from densekit.files.json_files import write_json
from densekit.model.init import named_generator
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.model.weights import save_weights
from densekit.spec.math import Lora

PREFIX = "base_model.model."


def target_modules(language_model: nn.Module) -> list[str]:
    """Leaf names of the Linear modules LoRA applies to, whether or not adapters are in them."""
    linear = [
        name.split(".")
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    names = {
        parts[-2] if parts[-1] == "base_layer" else parts[-1]
        for parts in linear
        if "lora_" not in str(parts)
    }
    return sorted(names - {"lm_head"})


def lora_config(model: DenseConnectorForConditionalGeneration, lora: Lora) -> LoraConfig:
    """The peft configuration for the recipe's `lora` section (r, alpha, dropout)."""
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        task_type="CAUSAL_LM",
        target_modules=target_modules(model.language_model),
    )


def add_lora(model: DenseConnectorForConditionalGeneration, lora: Lora) -> None:
    """Freeze the language model and put trainable fp32 adapters into it."""
    model.language_model.requires_grad_(False)
    inject_adapter_in_model(lora_config(model, lora), model.language_model)


def initial_lora(model: DenseConnectorForConditionalGeneration, seed: int) -> dict[str, Tensor]:
    """Adapter weights under peft's names: A uniform in +-1/sqrt(fan_in) (peft's default), B zero.

    Drawn from a named generator: the official code draws them before it seeds anything
    (docs/upstream.md, U5).
    """
    generator = named_generator(seed, "lora")
    drawn = {}
    for name, value in lora_weights(model).items():
        bound = value.shape[1] ** -0.5
        noise = (torch.rand(value.shape, generator=generator) * 2 - 1) * bound
        drawn[name] = noise if ".lora_A." in name else torch.zeros_like(value)
    return drawn


def lora_weights(model: DenseConnectorForConditionalGeneration) -> dict[str, Tensor]:
    """The adapters under the names peft saves: base_model.model.<module>.lora_A.weight."""
    return {
        PREFIX + name: value
        for name, value in get_peft_model_state_dict(model.language_model).items()
    }


def load_lora(model: DenseConnectorForConditionalGeneration, weights: dict[str, Tensor]) -> None:
    """Load adapters saved by peft (with or without the adapter name `default`).

    Raises DataError when names or shapes belong to another model.
    """
    renamed = {
        name.removeprefix(PREFIX).replace(".default.", "."): value
        for name, value in weights.items()
    }
    expected = {
        name: value.shape for name, value in get_peft_model_state_dict(model.language_model).items()
    }
    if {name: value.shape for name, value in renamed.items()} != expected:
        odd = ", ".join(sorted(set(renamed) ^ set(expected))[:3])
        raise DataError(f"LoRA weights do not fit this model: {odd or 'shapes differ'}")
    set_peft_model_state_dict(model.language_model, renamed)


def adapter_parameter(name: str) -> str:
    """peft's name of a saved adapter weight -> the parameter of the language model for it."""
    return name.removeprefix(PREFIX).replace(".weight", ".default.weight")


def saved_name(parameter: str) -> str:
    """Inverse of adapter_parameter."""
    return PREFIX + parameter.replace(".default.", ".")


def save_lora(
    model: DenseConnectorForConditionalGeneration,
    weights: dict[str, Tensor],
    lora: Lora,
    folder: Path,
) -> None:
    """Write a folder that peft loads: adapter_config.json and adapter_model.safetensors.

    `weights`: the adapters by parameter name in the language model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = lora_config(model, lora).to_dict()
    config["target_modules"] = sorted(config["target_modules"])
    write_json(
        folder / "adapter_config.json", {k: getattr(v, "value", v) for k, v in config.items()}
    )
    named = {saved_name(name): value for name, value in weights.items()}
    save_weights(named, folder / "adapter_model.safetensors")
