"""One name for a parameter, whoever wrote it down: densekit, the official code or peft."""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from densekit.errors import DataError

CONNECTOR = "model.mm_projector."
TOWER = "model.vision_tower.vision_tower.vision_model."
NEWLINE = "image_newline.weight"
OWN_TOWER = "vision_tower.model."
_MINING = re.compile(r"^(?:projector\.|connector\.)?mining\.(query|aux|val)\.")
_PEFT = "base_model.model."
_ADAPTER = re.compile(r"\.(lora_[AB])\.default\.")
_CONNECTOR_ALONE = re.compile(r"(projector|connector|mm_projector)\.|(?=\d+\.(weight|bias)$)")

Value = TypeVar("Value")


def official_name(name: str) -> str:
    """The official code's name of a parameter, without what peft adds to it.

    Understands densekit's own (`projector.0.weight`, `language_model.lm_head.weight`), the official
    ones, peft's (`base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight`, and the
    same without the adapter's name `default`, as peft saves it) and those of a file that holds the
    connector alone (`mm_projector.0.weight`, `0.weight`). The connector is `model.mm_projector.*`,
    the tower `model.vision_tower.vision_tower.vision_model.*`.
    """
    if name in (NEWLINE, "image_newline"):
        return "model.image_newline"
    if name.startswith(OWN_TOWER):
        return TOWER + name.removeprefix(OWN_TOWER).removeprefix("vision_model.")
    if name.startswith("vlm_uni_"):
        return f"model.{name}"
    if _MINING.match(name):
        return _MINING.sub(r"model.vlm_uni_\1_projector.", name)
    name = name.removeprefix(_PEFT).removeprefix("language_model.")
    name = _ADAPTER.sub(r".\1.", name)
    return _CONNECTOR_ALONE.sub(CONNECTOR, name, count=1) if _CONNECTOR_ALONE.match(name) else name


def by_official_name(named: Mapping[str, Value]) -> dict[str, Value]:
    """The same values under official names; DataError when two names are one parameter."""
    renamed = {official_name(name): value for name, value in named.items()}
    if len(renamed) != len(named):
        raise DataError(f"two names are the same parameter: {_twice(named)}")
    return renamed


def official_names(names: Iterable[str]) -> list[str]:
    """Official names in order; DataError when two names are one parameter."""
    return sorted(by_official_name(dict.fromkeys(names)))


def _twice(names: Iterable[str]) -> str:
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(official_name(name), name)
        if first != name:
            return f"{first}, {name}"
    return ""
