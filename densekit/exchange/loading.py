"""A model from a complete run or an imported folder, ready to answer."""

from pathlib import Path

import torch

from densekit.errors import DataError
from densekit.exchange.adapter import merged
from densekit.exchange.source import Source, open_source, read_newline
from densekit.model.config import DenseConnectorConfig
from densekit.model.pretrained import load_pretrained
from densekit.model.towers import load_tower
from densekit.model.towers.convnext import load_high_resolution_tower
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.model.weights import load_parts, read_weights


def load_model(
    folder: Path, *, dtype: torch.dtype = torch.float32
) -> tuple[DenseConnectorForConditionalGeneration, Source]:
    """The model of a run or an import in eval mode, LoRA adapters merged, and where it is from.

    `dtype` is that of the language model, and what adapters are merged in. Raises UsageError and
    DataError as `open_source`, and when a part does not fit.
    """
    source = open_source(folder)
    if source.whole is not None:
        model: DenseConnectorForConditionalGeneration = load_pretrained(
            DenseConnectorForConditionalGeneration,
            source.whole,
            what="trained model",
            config=DenseConnectorConfig.from_pretrained(source.whole, local_files_only=True),
            dtype=dtype,
            dropped=(),
        )
        # The folder holds everything in the type it was trained in; a frozen tower is exact.
        config = model.config
        last_layer = source.connector.last_layer(config.tower_layers)
        if source.tower_trained:
            model.vision_tower.float()
        else:
            model.vision_tower = load_tower(
                source.tower, config.vision_config, last_layer, torch.float32
            )
        if source.high_resolution_tower is not None:
            model.high_resolution_tower = load_high_resolution_tower(
                source.high_resolution_tower, config.high_resolution_config, torch.float32
            )
    else:
        language_model = source.files[0][0].path.parent
        model = load_parts(
            language_model,
            source.tower,
            source.connector,
            anyres=source.anyres,
            high_resolution_tower=source.high_resolution_tower,
            dtype=dtype,
        )
    _load_connector(model, source.connector_file)
    if model.image_newline is not None:
        model.set_newline(read_newline(source))
    if source.adapter is not None:
        _merge(model, source, dtype)
    rows = model.embedding_rows
    if rows > source.vocabulary:
        model.language_model.resize_token_embeddings(source.vocabulary, mean_resizing=False)
    model.eval()
    return model, source


def _load_connector(model: DenseConnectorForConditionalGeneration, path: Path) -> None:
    connector = read_weights(path)
    model.projector.to_empty(device="cpu")
    try:
        model.projector.load_state_dict({name: value.float() for name, value in connector.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} does not fit this model: {reason}") from None
    model.projector.float()


@torch.no_grad()
def _merge(
    model: DenseConnectorForConditionalGeneration, source: Source, dtype: torch.dtype
) -> None:
    adapter = source.adapter
    assert adapter is not None
    weights = dict(model.language_model.named_parameters())
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    adapter.check(shapes, source.path)
    for name, low in adapter.read().items():
        weights[name].copy_(merged(weights[name], low, adapter.scale, dtype))
