"""Stored prompts, and what a model answers to them: how an export is compared with its source.

As a module it is the fresh process that reads an export: `python -m
densekit.exchange.export.answers FORMAT FOLDER PROMPTS ANSWERS BASE TOWER`.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from densekit.data.pixels import ImageProcessor
from densekit.exchange.source import Source
from densekit.exchange.tokenizer import tokenizer_of
from densekit.model.answering import Decoding, generate
from densekit.model.preprocess import normalise
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.spec.types import IMAGE_TOKEN_ID
from densekit.text.encode import SampleEncoder

PROMPTS = (
    "<image>\nWhat is shown in the picture?",
    "<image>\nDescribe the image in detail.",
    "How many legs does a spider have?",
)
NEW_TOKENS = 16


def stored_prompts(source: Source) -> dict[str, Tensor]:
    """Ids and pixels of the prompts, encoded the official way: `N/ids` [T] with the image tag as
    one id, `N/pixels` [1, 3, S, S] or its tiles [t, 3, S, S], `N/size` (width and height), `ends`.
    """
    encoder = SampleEncoder(
        tokenizer=tokenizer_of(source.tokenizer),
        template=source.template,
        semantics=source.semantics,
        max_length=source.max_length,
    )
    processor = ImageProcessor.from_pretrained(
        source.tower, source.image_aspect_ratio, source.anyres, mining=source.connector.mining
    )
    table = torch.from_numpy(processor.lookup_table())
    values = {"ends": torch.tensor(encoder.end_tokens)}
    for number, text in enumerate(PROMPTS):
        has_image = text.startswith("<image>")
        turn = {"from": "human", "value": text}
        ids = encoder.encode_prompt([turn], has_image=has_image)
        values[f"{number}/ids"] = torch.from_numpy(ids)
        if has_image:
            picture = _picture(number)
            values[f"{number}/size"] = torch.tensor(picture.size)
            values[f"{number}/pixels"] = normalise(
                torch.from_numpy(processor.views(picture)), table
            )
    return values


def _picture(number: int) -> Image.Image:
    """A made picture, wider than high: two gradients."""
    across = Image.linear_gradient("L").resize((320, 200))
    return Image.merge("RGB", (across, across.rotate(90 * (number + 1)), across.rotate(180)))


def each_prompt(
    values: dict[str, Tensor],
) -> Iterator[tuple[int, Tensor, Tensor | None, list[tuple[int, int]]]]:
    """Number, ids, pixels and (width, height) of the image of every prompt."""
    for number in range(len(PROMPTS)):
        size = values.get(f"{number}/size")
        sizes = [] if size is None else [(int(size[0]), int(size[1]))]
        yield number, values[f"{number}/ids"], values.get(f"{number}/pixels"), sizes


def answers_of(
    model: DenseConnectorForConditionalGeneration, values: dict[str, Tensor]
) -> dict[str, Tensor]:
    """What densekit's model says: `N/logits` [V] at the last position, `N/generated` [L]."""
    decoding = Decoding(end_tokens=tuple(values["ends"].tolist()), max_new_tokens=NEW_TOKENS)
    found = {}
    for number, ids, pixels, sizes in each_prompt(values):
        output = generate(model, [ids], pixels, decoding, image_sizes=sizes, logits=True)
        assert output.first_logits is not None
        found[f"{number}/logits"] = output.first_logits[0].clone()
        found[f"{number}/generated"] = torch.tensor(output.ids[0])
    return found


@torch.no_grad()
def answers_of_stock(folder: Path, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same of transformers' own LlavaForConditionalGeneration, or LlavaNext's, which the
    export's generation configuration guides, with as many image tokens as its processor counts.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    model, report = loaded
    if faults := [name for key in ("missing_keys", "unexpected_keys") for name in report[key]]:
        raise SystemExit(f"transformers reads {faults[:5]} otherwise than they were written")
    model.eval()
    image_id, tokens = model.config.image_token_id, model.config.image_seq_length
    in_tiles = model.config.model_type == "llava_next"
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True) if in_tiles else None
    found = {}
    for number, ids, pixels, sizes in each_prompt(values):
        if processor is not None and sizes:
            heights_first = [[height, width] for width, height in sizes]
            counted = processor._get_num_multimodal_tokens(image_sizes=heights_first)
            (tokens,) = counted.num_image_tokens
        expanded = [
            each
            for id_ in ids.tolist()
            for each in ([image_id] * tokens if id_ == IMAGE_TOKEN_ID else [id_])
        ]
        inputs = {"input_ids": torch.tensor([expanded])}
        if pixels is not None:
            inputs["pixel_values"] = pixels
        if in_tiles and pixels is not None:
            inputs |= {"pixel_values": pixels[None], "image_sizes": torch.tensor(heights_first)}
        logits = model(**inputs).logits[0, -1]
        output = model.generate(**inputs, max_new_tokens=NEW_TOKENS)
        found[f"{number}/logits"] = logits[:image_id].float().clone()
        found[f"{number}/generated"] = output[0, len(expanded) :].clone()
    return found


def main(arguments: list[str]) -> None:
    """Read an export in this process and write its answers."""
    format_, folder, prompts, out, base, tower = arguments
    values = load_file(prompts)
    if format_ == "llava-hf":
        save_file(answers_of_stock(Path(folder), values), out)
        return
    if format_ == "densekit":
        model = DenseConnectorForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        model.eval()
        save_file(answers_of(model, values), out)
        return
    from densekit.exchange.loading import load_model
    from densekit.exchange.official.folder import open_official
    from densekit.exchange.official.importing import import_folder
    from densekit.spec.imported import ImportRequest

    whole = open_official(Path(folder)).trains == "full"
    # Beside the export: /tmp may be memory, and this is a whole model again.
    with tempfile.TemporaryDirectory(dir=folder) as made:
        request = ImportRequest(
            folder=Path(folder),
            to=Path(made) / "again",
            base=None if whole else Path(base),
            tower=Path(tower),
        )
        import_folder(request)
        model, _ = load_model(request.to)
        save_file(answers_of(model, values), out)


if __name__ == "__main__":
    main(sys.argv[1:])
