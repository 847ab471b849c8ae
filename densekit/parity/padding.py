"""A recorded batch under both attention paths, with left padding, and greedy generation."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from densekit.errors import DataError
from densekit.files.json_files import read_json
from densekit.model.preprocess import pixel_values
from densekit.model.weights import read_weights
from densekit.parity.case import Recording, make_trainer, single_step
from densekit.parity.compare import FEATURES, LOGITS, LOSS, Quantities
from densekit.parity.computed import normalised_pixels, pad, run_everywhere
from densekit.parity.tokens import user_text
from densekit.spec.types import IGNORE_INDEX
from densekit.text.encode import SampleEncoder
from densekit.train.step_dataset import SampleReader


def check_batch_extra(root: Path, path: Path, quantities: Quantities) -> None:
    """`<case>_extra`: both attention paths, left padding and greedy generation on the case after
    stage 1.
    """
    record = read_json(path)
    arrays = dict(np.load(path.with_suffix(".npz")))
    folder = root / path.stem.removesuffix("_extra")
    recording = Recording.read(root, folder / "stage2.json")
    projector = read_weights(folder / "projector_after_stage1.safetensors")
    model = recording.model({f"connector.{name}": value for name, value in projector.items()})
    reader = recording.reader(root / "data" / "stage2_batch.json", model)
    chosen = _chosen_samples(reader, arrays["input_ids"])
    trainer = make_trainer(model, reader, single_step(chosen), recording.math)
    (micro_batch,) = (batch := next(trainer.batches())).micro_batches
    images = pixel_values(micro_batch.pixels, trainer.lookup_table)
    spans = list(itertools.pairwise(micro_batch.cu_seqlens.tolist()))
    loss = trainer.accumulate(batch).item()
    for recorded in (*record["sdpa_vs_eager"]["loss"], record["left_pad"]["loss"]):
        quantities.close("loss", loss, recorded, LOSS)
    embedded, logits = run_everywhere(model, micro_batch, images)
    differences = _attention_differences(model, embedded, logits, spans)
    for name, ours in differences.items():
        quantities.close("sdpa_against_eager", ours, record["sdpa_vs_eager"][name], LOGITS)
    columns = torch.from_numpy(arrays["vocab_cols"])
    quantities.close("logits", logits[:, columns], arrays["logits_cols"], LOGITS)
    _check_padding(reader, chosen, arrays, quantities)
    _check_left_padding(reader, chosen, embedded, spans, arrays, quantities)
    _check_generation(record["generate"], reader, model, arrays["pixel_values"], quantities)


def _attention_differences(
    model: Any, embedded: Tensor, logits: Tensor, spans: list[tuple[int, int]]
) -> dict[str, float]:
    """Largest differences between kernels, as the recording names them: densekit's packed kernel
    against stock eager attention over the right-padded batch, and stock SDPA against eager at the
    padded positions, which a packed micro-batch does not have.
    """
    sequences = [embedded[start:end] for start, end in spans]
    padded = pad_sequence(sequences, batch_first=True)
    mask = pad_sequence([torch.ones(len(part)) for part in sequences], batch_first=True).long()
    stock: dict[str, Tensor] = {}
    for name in ("sdpa", "eager"):
        with torch.no_grad(), model.stock_attention(name):
            output = model.language_model(inputs_embeds=padded, attention_mask=mask)
        stock[name] = output.logits.double()
    valid = mask.bool()
    return {
        "max_abs_valid": _largest(stock["eager"][valid] - logits),
        "max_abs_padded": _largest((stock["eager"] - stock["sdpa"])[~valid]),
    }


def _largest(difference: Tensor) -> float:
    return float(difference.abs().numpy().max(initial=0.0))


def _chosen_samples(reader: SampleReader, recorded_ids: np.ndarray) -> list[int]:
    """Which samples of the batch file were recorded; DataError when one is not in the file."""
    encoded = [reader.encode(index).input_ids.tolist() for index in range(len(reader.samples))]
    recorded = [ids[ids != reader.encoder.pad_id].tolist() for ids in recorded_ids]
    for number, ids in enumerate(recorded):
        if ids not in encoded:
            raise DataError(
                f"input_ids[{number}] are not those of any sample of data/stage2_batch.json"
            )
    return [encoded.index(ids) for ids in recorded]


def _check_padding(
    reader: SampleReader,
    chosen: list[int],
    arrays: dict[str, np.ndarray],
    quantities: Quantities,
) -> None:
    encoded = [reader.encode(index) for index in chosen]
    ids = pad([sample.input_ids for sample in encoded], reader.encoder.pad_id)
    quantities.close("input_ids", ids, arrays["input_ids"], 0.0)
    quantities.close("input_ids", ids != reader.encoder.pad_id, arrays["attention_mask"], 0.0)
    labels = pad([sample.labels for sample in encoded], IGNORE_INDEX)
    quantities.close("labels", labels, arrays["labels"], 0.0)
    pixels = [normalised_pixels(reader, index) for index in chosen]
    quantities.close("pixels", torch.cat(pixels), arrays["pixel_values"], 0.0)


def _check_left_padding(
    reader: SampleReader,
    chosen: list[int],
    embedded: Tensor,
    spans: list[tuple[int, int]],
    arrays: dict[str, np.ndarray],
    quantities: Quantities,
) -> None:
    norms = embedded.norm(dim=-1).numpy()
    left: dict[str, list[np.ndarray]] = {
        "left_attention_mask": [np.ones(end - start) for start, end in spans],
        "left_position_ids_when_given": [np.arange(end - start) for start, end in spans],
        "left_embeds_l2": [norms[start:end] for start, end in spans],
    }
    for name, sequences in left.items():
        quantities.close("left_padding", _pad_left(sequences, 0), arrays[name], FEATURES)
    labels = _pad_left([reader.sequence(index)[0].labels for index in chosen], IGNORE_INDEX)
    quantities.close("labels", labels, arrays["left_labels"], 0.0)


def _pad_left(sequences: list[np.ndarray], value: float) -> np.ndarray:
    return pad([part[::-1] for part in sequences], value)[:, ::-1]


def _check_generation(
    prompts: list[dict[str, Any]],
    reader: SampleReader,
    model: Any,
    pixel_values: np.ndarray,
    quantities: Quantities,
) -> None:
    """Greedy ids after the recorded prompt (the official ones begin with a dummy BOS), and the
    prompt's own ids where the set holds the tokenizer.
    """
    for prompt in prompts:
        ours = _generate(model, prompt, pixel_values)
        quantities.exact("generated_ids", ours, prompt["output_ids"][1:])
        if isinstance(reader.encoder, SampleEncoder):
            turn = {"from": "human", "value": user_text(prompt["prompt"], reader.encoder)}
            ids = reader.encoder.encode_prompt([turn], has_image=True)
            quantities.close("prompt_ids", ids, np.array(prompt["input_ids"]), 0.0)


def _generate(model: Any, prompt: dict[str, Any], pixel_values: np.ndarray) -> list[int]:
    pixels = torch.from_numpy(pixel_values[prompt["image_index"]])[None]
    model.eval()
    length = len(prompt["output_ids"]) - 1
    ids = model.generate(
        [torch.tensor(prompt["input_ids"])],
        pixels,
        max_new_tokens=length,
        do_sample=False,
        pad_token_id=0,
    )
    return list(ids[0].tolist())
