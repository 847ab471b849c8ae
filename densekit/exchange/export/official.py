"""Export to a folder of the official code: what its own training would have left."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densekit.errors import DataError
from densekit.exchange.adapter import ADAPTER_CONFIG
from densekit.exchange.export.tensors import (
    Fetch,
    LanguageModel,
    cast,
    layouts_of,
    tower_tensors,
)
from densekit.exchange.official.folder import PROJECTOR, TRAINABLES
from densekit.exchange.official.importing import TOWER_COPY
from densekit.exchange.official.settings import CONFIG, official_connector
from densekit.exchange.shards import ShardWriter
from densekit.exchange.source import Source, read_newline
from densekit.files.json_files import read_object, write_json
from densekit.model.config import read_config
from densekit.model.tensor_files import NAMES
from densekit.model.towers import vision_config_of
from densekit.model.weights import read_weights
from densekit.runs.layout import RunDir
from densekit.spec.anyres import AnyRes
from densekit.spec.types import Dtype
from densekit.text.tokenizers.base import TOKENIZER_FILES

STATED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_official(source: Source, folder: Path, *, merge: bool, dtype: Dtype | None) -> None:
    """Write the model into `folder`: a connector, an adapter with one, or a whole model. Raises
    DataError for a connector that the official code does not have.
    """
    if source.tower_trained:
        raise DataError(
            "the vision tower was trained too, and the official code loads the one that "
            "mm_vision_tower names: its folder would answer with the untrained tower; export with "
            "--format llava-hf or densekit"
        )
    vision = vision_config_of(read_config(source.tower, "vision tower"))
    is_clip = vision.model_type == "clip_vision_model"
    if source.connector.mining is not None:
        raise DataError(
            "the connector mines a second tower, as Mini-Gemini's code does and the official one "
            "does not: its folders cannot hold it; export with --format densekit"
        )
    if source.connector.reduce_tokens != "none" or source.connector.learned:
        what = "trains a module" if source.connector.learned else "reduces the tokens of an image"
        raise DataError(
            f"connector {source.connector.kind} {what}, which the official code never did: its "
            "folders cannot hold it; export with --format densekit"
        )
    known = official_connector(source.connector.kind, vision.num_hidden_layers, is_clip)
    if known != source.connector:
        raise DataError(
            f"connector {source.connector.kind} reads other layers or groups than the official "
            "code does: its folders cannot say which; export with --format llava-hf or densekit"
        )
    connector = cast(read_weights(source.connector_file), dtype)
    newline = {}
    if source.anyres is not None and source.anyres.has_newline and source.trains != "connector":
        newline = cast({"model.image_newline": read_newline(source)}, dtype)
    whole = source.trains == "full" or (merge and source.adapter is not None)
    if whole:
        _write_model(source, folder, connector, newline, merge=merge, dtype=dtype)
    else:
        _write_parts(source, folder, connector, newline, dtype)
    write_json(folder / CONFIG, _config(source, vision.hidden_size, is_clip, whole))


def _write_parts(
    source: Source,
    folder: Path,
    connector: Mapping[str, Tensor],
    newline: Mapping[str, Tensor],
    dtype: Dtype | None,
) -> None:
    names = {f"model.mm_projector.{name}": value for name, value in connector.items()}
    names |= newline
    if source.adapter is None:
        torch.save(names, folder / PROJECTOR)
        return
    torch.save({f"base_model.model.{n}": v for n, v in names.items()}, folder / TRAINABLES)
    adapter = source.adapter.file.read(source.adapter.file.shapes)
    torch.save(cast(adapter, dtype), folder / "adapter_model.bin")
    settings = read_object(source.adapter.folder / ADAPTER_CONFIG)
    base = settings.get("base_model_name_or_path")
    if source.official is None:
        base = _base_name(source)
    write_json(folder / ADAPTER_CONFIG, {**settings, "base_model_name_or_path": base})


def _write_model(
    source: Source,
    folder: Path,
    connector: Mapping[str, Tensor],
    newline: Mapping[str, Tensor],
    *,
    merge: bool,
    dtype: Dtype | None,
) -> None:
    language_model = LanguageModel(source, merge=merge, dtype=dtype)
    files = language_model.files()
    tower = cast(_tower(source, dtype is None, files[0].layouts), dtype)
    rest = {f"model.mm_projector.{name}": value for name, value in connector.items()}
    rest |= newline
    rest |= {f"model.vision_tower.vision_tower.{name}": value for name, value in tower.items()}
    writer = ShardWriter(folder, len(files))
    for number, part in enumerate(files, start=1):
        last = rest if number == len(files) else {}
        with language_model.opened(part) as fetch:
            writer.add({**part.layouts, **layouts_of(last)}, _either(fetch, last))
    writer.finish()
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        if (source.tokenizer / name).is_file():
            shutil.copyfile(source.tokenizer / name, folder / name)


def _either(fetch: Fetch, besides: Mapping[str, Tensor]) -> Fetch:
    return lambda name: besides[name] if name in besides else fetch(name)


def _tower(source: Source, as_stored: bool, layouts: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tower's copy: that of the imported folder, where it had one, else the tower itself in the
    language model's type, without what the official code deletes (SigLIP's last layer and head).
    """
    if source.official is not None and source.trains == "full":
        path = source.official / TOWER_COPY
        return read_weights(path) if path.is_file() else {}
    tensors = tower_tensors(source.tower)
    vision = vision_config_of(read_config(source.tower, "vision tower"))
    if vision.model_type != "clip_vision_model":
        last = f"vision_model.encoder.layers.{vision.num_hidden_layers - 1}."
        tensors = {
            name: value
            for name, value in tensors.items()
            if not name.startswith((last, "vision_model.head."))
        }
    if not as_stored:
        return tensors
    types = {name: dtype for dtype, name in NAMES.items()}
    dtype = types[next(iter(layouts.values())).dtype]
    return {name: value.to(dtype) for name, value in tensors.items()}


def _config(source: Source, hidden: int, is_clip: bool, whole: bool) -> dict[str, Any]:
    """The config.json of an import as it was; of a run, what the official training would say."""
    if source.official is not None:
        raw = read_object(source.official / CONFIG)
        merged = whole and source.trains != "full"
        return {**raw, "architectures": ["LlavaLlamaForCausalLM"]} if merged else raw
    text: dict[str, Any] = source.config.to_dict()
    rope = text.pop("rope_parameters", None) or {}
    for name in ("_name_or_path", "dtype", "transformers_version"):
        text.pop(name, None)
    width = source.connector.width(hidden)
    return {
        **text,
        "_name_or_path": _base_name(source),
        "architectures": ["LlavaLlamaForCausalLM" if whole else "LlamaForCausalLM"],
        "model_type": "llava_llama",
        "rope_theta": rope.get("rope_theta", 10000.0),
        "torch_dtype": STATED.get(next(iter(source.shapes.values()))[0], "float32"),
        "mm_vision_tower": _tower_name(source, is_clip),
        "mm_dense_connector_type": source.connector.kind,
        "mm_hidden_size": width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_patch_merge_type": "flat" if source.anyres is None else source.anyres.merge,
        **({} if source.anyres is None else {"image_grid_pinpoints": pinpoints(source.anyres)}),
        "mm_projector_lr": None,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "is_video": False,
        "image_aspect_ratio": source.image_aspect_ratio,
        "tokenizer_padding_side": "right",
        "tokenizer_model_max_length": source.max_length,
        "tune_mm_mlp_adapter": source.trains == "connector",
        "freeze_mm_mlp_adapter": False,
        "use_cache": True,
    }


def pinpoints(anyres: AnyRes) -> list[list[int]]:
    """Width before height, as the official code reads them."""
    return [[*size] for size in anyres.pinpoints]


def _base_name(source: Source) -> str:
    """The language model's name without a path of this machine."""
    models = RunDir(source.path).math.recipe.models
    return Path(models.language_model.rpartition(":")[2]).name


def _tower_name(source: Source, is_clip: bool) -> str:
    """The tower's name without a path; the official code takes the tower's class from it."""
    name = Path(RunDir(source.path).math.recipe.models.vision_tower.rpartition(":")[2]).name
    if is_clip == ("siglip" in name.lower()):
        return f"{'clip' if is_clip else 'siglip'}-tower"
    return name if not is_clip or "clip" in name.lower() else f"clip-{name}"
