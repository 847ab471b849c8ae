"""A model from an imported folder, ready to answer."""

from pathlib import Path

import torch

from densekit.errors import DataError
from densekit.exchange.adapter import merged, read_adapter
from densekit.exchange.official.importing import LORA
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.model.weights import load_parts, read_weights
from densekit.runs.layout import CONNECTOR_FILE
from densekit.spec.imported import Imported, read_imported


def load_imported(
    folder: Path, *, dtype: torch.dtype = torch.float32
) -> tuple[DenseConnectorForConditionalGeneration, Imported]:
    """The model of an imported folder in eval mode, LoRA adapters merged, and its record.

    `dtype` is that of the language model, and what adapters are merged in. Raises DataError when a
    part is missing or does not fit.
    """
    record = read_imported(folder)
    model = load_parts(
        folder / record.language_model,
        folder / record.vision_tower,
        record.connector,
        dtype=dtype,
    )
    connector = read_weights(folder / CONNECTOR_FILE)
    model.projector.to_empty(device="cpu")
    try:
        model.projector.load_state_dict({name: value.float() for name, value in connector.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{folder / CONNECTOR_FILE} does not fit this model: {reason}") from None
    if record.trains == "lora":
        _merge(model, folder / LORA, dtype)
    rows = model.get_input_embeddings().weight.shape[0]
    if rows > record.vocabulary:
        model.language_model.resize_token_embeddings(record.vocabulary, mean_resizing=False)
    model.eval()
    return model, record


@torch.no_grad()
def _merge(model: DenseConnectorForConditionalGeneration, folder: Path, dtype: torch.dtype) -> None:
    adapter = read_adapter(folder)
    weights = dict(model.language_model.named_parameters())
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    adapter.check(shapes, folder.parent)
    for name, low in adapter.read().items():
        weights[name].copy_(merged(weights[name], low, adapter.scale, dtype))
