"""Export to densekit's own model class: one folder that `from_pretrained` of
`DenseConnectorForConditionalGeneration` reads.
"""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from densekit.exchange.export.tensors import (
    OWN_TOWER,
    ROWS,
    Fetch,
    LanguageModel,
    cast,
    layouts_of,
    trained_tower,
)
from densekit.exchange.own_folder import CONVERSATION, NEWLINE
from densekit.exchange.shards import ShardWriter
from densekit.exchange.source import OWN, Source, read_newline
from densekit.files.json_files import write_json
from densekit.files.safetensors_writer import Layout
from densekit.model.config import DenseConnectorConfig, read_config
from densekit.model.towers import load_tower, vision_config_of
from densekit.model.towers.convnext import conv_config, load_high_resolution_tower
from densekit.model.weights import read_weights
from densekit.spec.types import Dtype
from densekit.text.tokenizers.base import TOKENIZER_FILES


def write_own(source: Source, folder: Path, *, dtype: Dtype | None) -> None:
    """Write the model into `folder`, adapters merged."""
    vision = read_config(source.tower, "vision tower")
    layers = vision_config_of(vision).num_hidden_layers
    if source.tower_trained:
        assert source.whole is not None
        rest = {f"{OWN_TOWER}{n}": v for n, v in trained_tower(source.whole).items()}
    else:
        last_layer = source.connector.last_layer(layers)
        tower = load_tower(source.tower, vision, last_layer, torch.float32).state_dict()
        rest = {f"vision_tower.{name}": value for name, value in tower.items()}
    conv = None
    if source.high_resolution_tower is not None and source.connector.mining is not None:
        conv = conv_config(source.high_resolution_tower, source.connector.mining)
        second = load_high_resolution_tower(source.high_resolution_tower, conv, torch.float32)
        named = second.state_dict().items()
        rest |= {f"high_resolution_tower.{name}": value for name, value in named}
    projector = read_weights(source.connector_file)
    rest |= {f"projector.{name}": value for name, value in projector.items()}
    if source.anyres is not None and source.anyres.has_newline:
        rest[NEWLINE] = read_newline(source)
    rest = cast(rest, dtype)
    language_model = LanguageModel(source, merge=source.adapter is not None, dtype=dtype)
    files = language_model.files()
    writer = ShardWriter(folder, len(files) + 1)
    for part in files:
        with language_model.opened(part) as fetch:
            layouts = {f"{OWN}{n}": _used(n, v, source) for n, v in part.layouts.items()}
            writer.add(layouts, _own(fetch, source))
    writer.add(layouts_of(rest), rest.__getitem__)
    writer.finish()
    config = DenseConnectorConfig(
        text_config=source.config,
        vision_config=vision_config_of(vision),
        high_resolution_config=conv,
        connector=source.connector.model_dump(mode="json"),
        anyres=None if source.anyres is None else source.anyres.model_dump(mode="json"),
        architectures=["DenseConnectorForConditionalGeneration"],
    )
    value = config.to_dict()
    value["text_config"]["vocab_size"] = source.vocabulary
    for part_config in (value, value["text_config"], value["vision_config"]):
        part_config.pop("_name_or_path", None)
    value[CONVERSATION] = source.conversation.model_dump(mode="json")
    write_json(folder / "config.json", value)
    for name in TOKENIZER_FILES:
        if (source.tokenizer / name).is_file():
            shutil.copyfile(source.tokenizer / name, folder / name)
    shutil.copyfile(source.tower / "preprocessor_config.json", folder / "preprocessor_config.json")


def _used(name: str, layout: Layout, source: Source) -> Layout:
    """Without the rows behind the tokenizer's last token."""
    if name not in ROWS:
        return layout
    return Layout(dtype=layout.dtype, shape=(source.vocabulary, *layout.shape[1:]))


def _own(fetch: Fetch, source: Source) -> Fetch:
    def tensor(name: str) -> Tensor:
        own = name.removeprefix(OWN)
        return fetch(own)[: source.vocabulary] if own in ROWS else fetch(own)

    return tensor
