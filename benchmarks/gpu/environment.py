"""What is installed here, what is missing, and what is done instead."""

import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PURE = {
    "accelerate": "process group and engines",
    "peft": "LoRA",
    "pydantic": "recipes",
    "yaml": "recipes",
    "typer": "the command line",
    "filelock": "locks",
    "safetensors": "weights",
    "transformers": "models",
    "sentencepiece": "tokenizers",
    "tokenizers": "tokenizers",
    "PIL": "images",
    "numpy": "numbers",
}
"""Needed: without one of them nothing is measured."""
OPTIONAL = {
    "deepspeed": "ZeRO is not tried; one process trains without sharding, as DDP does",
    "flash_attn": "the flash kernel is not tried; SDPA computes packed micro-batches",
    "xformers": "the xformers kernel is not tried; SDPA computes packed micro-batches",
}
"""What is done where they are missing."""
DISTRIBUTIONS = {"yaml": "PyYAML", "PIL": "pillow", "flash_attn": "flash-attn"}


def environment(device: str) -> dict[str, Any]:
    """Versions, GPU and what is missing; `ok` is False where something needed is."""
    import torch

    missing = {name: why for name, why in PURE.items() if not _imports(name)}
    instead = {name: why for name, why in OPTIONAL.items() if not _imports(name)}
    cuda = device == "cuda"
    return {
        "ok": not missing,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "capability": list(torch.cuda.get_device_capability()) if cuda else None,
        "memory_gib": round(torch.cuda.mem_get_info()[1] / 2**30, 1) if cuda else None,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "packages": {
            name: found
            for name in ("torch", "torchvision", *PURE, *OPTIONAL)
            if (found := _version(name)) is not None
        },
        "missing": missing,
        "instead": instead,
    }


def _imports(name: str) -> bool:
    try:
        import_module(name)
    except Exception:  # a package built for another torch raises whatever it likes
        return False
    return True


def _version(name: str) -> str | None:
    try:
        return version(DISTRIBUTIONS.get(name, name))
    except PackageNotFoundError:
        return None
