"""Official checkpoint folders, imported, against what the official loader made of them.

A set holds `base/` (models, images, prompts.json) and `given/<case>/<kind>/`, the folders, with
`expected_<kind>/` beside those that were loaded. A folder without it is imported all the same.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from densekit.data.pixels import ImageProcessor, open_image
from densekit.errors import DataError
from densekit.exchange.adapter import read_adapter
from densekit.exchange.export.llava_hf import write_llava_hf
from densekit.exchange.loading import load_model
from densekit.exchange.official.folder import open_official
from densekit.exchange.official.importing import import_folder
from densekit.exchange.source import open_source
from densekit.exchange.tokenizer import tokenizer_of
from densekit.files.json_files import read_json, read_object
from densekit.model.answering import Decoding, Generated, generate
from densekit.model.preprocess import normalise
from densekit.model.weights import read_weights
from densekit.parity.compare import LOGITS, Quantities
from densekit.parity.preprocess import recorded_aspect_ratio
from densekit.runs.layout import CONNECTOR_FILE
from densekit.spec.imported import Imported, ImportRequest
from densekit.text.encode import SampleEncoder

EXPECTED = "expected_"
PROJECTOR = 4e-6
"""Of the rearranged weights."""
EXPORT_KEYS = (
    *("architectures", "image_seq_length", "image_token_index", "model_type"),
    *("multimodal_projector_bias", "projector_hidden_act", "tie_word_embeddings"),
    *("vision_feature_layer", "vision_feature_select_strategy"),
)
NEW_TOKENS = 32
"""Of each recorded answer, at most."""
ROLES = {"user": "human", "assistant": "gpt"}
DTYPES = {"torch.float32": torch.float32, "torch.float16": torch.float16}


def exchange_folders(root: Path) -> Iterator[tuple[str, Path]]:
    """Name (`CASE/KIND`) and folder of every official folder of a set."""
    for case in sorted(path for path in (root / "given").iterdir() if path.is_dir()):
        for folder in sorted(path for path in case.iterdir() if path.is_dir()):
            if not folder.name.startswith(EXPECTED):
                yield f"{case.name}/{folder.name}", folder


def check_exchange(root: Path, folder: Path, quantities: Quantities) -> None:
    """One official folder: its import, and every number that is recorded of it."""
    base = root / "base"
    with tempfile.TemporaryDirectory(prefix="densekit-parity-") as made:
        target = Path(made) / "imported"
        record = import_folder(ImportRequest(folder=folder, to=target, search=(base,)))
        _check_connector(folder, target, quantities)
        expected = folder.with_name(f"{EXPECTED}{folder.name}")
        if expected.is_dir():
            _Loaded(root, target, record, expected, quantities).check()
        export = folder.with_name(f"{EXPECTED}export_{folder.name}")
        if export.is_dir():
            _check_export(target, Path(made) / "exported", export, quantities)


def _check_connector(folder: Path, target: Path, quantities: Quantities) -> None:
    """The connector bit for bit."""
    official = open_official(folder)
    written = read_weights(target / CONNECTOR_FILE)
    for file, stored in [official.connector] if official.connector else official.model:
        names = [name for name, each in stored.items() if each.part == "connector"]
        for name, value in file.read(names).items():
            ours = written[stored[name].name]
            quantities.exact("connector_type", str(ours.dtype), str(value.dtype))
            quantities.close("connector", ours, value, 0.0)


def _check_export(source: Path, target: Path, expected: Path, quantities: Quantities) -> None:
    """The same model for stock transformers: its configuration, names and projector."""
    target.mkdir()
    write_llava_hf(open_source(source), target, dtype=None)
    written: dict[str, Tensor] = {}
    for path in target.glob("*.safetensors"):
        written |= read_weights(path)
    # Recorded as transformers 5 names the tower, written as all releases read it. The head, which
    # nothing reads, is written only where the tower's folder has one.
    shapes = {n.replace(".vision_model.", "."): list(v.shape) for n, v in written.items()}
    recorded = dict(read_json(expected / "tensor_names.json"))
    for name in [name for name in recorded if name.startswith("vision_tower.head.")]:
        if name not in shapes:
            del recorded[name]
    quantities.exact("export_names", shapes, recorded)
    ours, theirs = read_object(target / "config.json"), read_object(expected / "config.json")
    for key in EXPORT_KEYS:
        quantities.exact("export_config", ours.get(key), theirs.get(key))
    quantities.exact(
        "export_config", ours["text_config"]["vocab_size"], theirs["text_config"]["vocab_size"]
    )
    for name, value in read_weights(expected / "projector.safetensors").items():
        quantities.close("export_projector", written[name], value, PROJECTOR)


class _Loaded:
    """A folder as the official loader read it."""

    def __init__(
        self, root: Path, target: Path, record: Imported, expected: Path, quantities: Quantities
    ) -> None:
        self.base, self.target, self.quantities = root / "base", target, quantities
        self.loader = read_object(expected / "loader.json", "prompts", "lm_dtype")
        self.arrays = read_weights(expected / "loader.safetensors")
        self.expected = expected
        if self.loader["lm_dtype"] not in DTYPES:
            raise DataError(f"{expected}/loader.json: lm_dtype {self.loader['lm_dtype']}")
        self.record = record
        self.model, _ = load_model(target, dtype=DTYPES[self.loader["lm_dtype"]])
        aspect = self.loader.get("image_aspect_ratio_used", record.image_aspect_ratio)
        self.processor = ImageProcessor.from_pretrained(
            target / record.vision_tower, recorded_aspect_ratio(aspect)
        )
        self.table = torch.from_numpy(self.processor.lookup_table())
        self.turns = {
            entry["name"]: entry["turns"] for entry in read_json(self.base / "prompts.json")
        }

    def check(self) -> None:
        """Vocabulary, merged weights, every prompt alone and in its batches."""
        rows = self.model.embedding_rows
        self.quantities.exact("vocabulary", rows, self.loader["vocab_size_after_load"])
        if (self.expected / "merged_weights.safetensors").is_file():
            self._check_merged()
        prompts = {prompt["key"]: prompt for prompt in self.loader["prompts"]}
        for prompt in prompts.values():
            self._check_prompt(prompt)
        for batch in self.loader.get("batches", ()):
            # As saved, the official code pads on the right, and shorter rows are wrong
            # (docs/upstream.md): densekit pads on the left.
            if batch["config.tokenizer_padding_side"] == "left":
                self._check_batch(batch, [prompts[key] for key in batch["prompts"]])

    def _check_merged(self) -> None:
        weights = dict(self.model.language_model.named_parameters())
        recorded = read_weights(self.expected / "merged_weights.safetensors")
        touched = read_adapter(self.target / "lora").halves
        self.quantities.exact("merged_names", sorted(touched), sorted(recorded))
        for name, value in recorded.items():
            self.quantities.close("merged_weights", weights[name], value, 0.0)

    def _check_prompt(self, prompt: dict[str, Any]) -> None:
        key, quantities = prompt["key"], self.quantities
        ids, pixels = self._input_ids(prompt), self._pixels(prompt)
        if pixels is not None:
            wide = pixels.double()
            ours = torch.stack([wide.mean(), wide.std(), wide.abs().sum()])
            quantities.each_relative(
                "pixel_statistics", ours, self.arrays[f"{key}/pixel_mean_std"], 1e-9
            )
        embedded, mask = self.model.prompt_embeddings(
            [ids], pixels, max_prompt=self.record.max_length
        )
        recorded = self.arrays[f"{key}/logsumexp"]  # cut at max_length, as officially
        quantities.exact("sequence_length", embedded.shape[1], len(recorded))
        with torch.no_grad(), self.model.stock_attention():
            logits = self.model.language_model(inputs_embeds=embedded, attention_mask=mask).logits[
                0
            ]
        quantities.close("logits", logits[-1], self.arrays[f"{key}/last_logits"], LOGITS)
        quantities.close("logsumexp", logits.logsumexp(-1), recorded, LOGITS)
        quantities.exact("argmax", int(logits[-1].argmax()), prompt["argmax"])
        (generated,) = self._generate([ids], pixels, prompt["stop_ids"]).ids
        quantities.close(
            "generated_ids", torch.tensor(generated), self.arrays[f"{key}/generated"], 0.0
        )

    def _check_batch(self, batch: dict[str, Any], prompts: list[dict[str, Any]]) -> None:
        mode, _, name = batch["name"].partition("/")
        images = [image for prompt in prompts if (image := self._pixels(prompt)) is not None]
        ids = [self._input_ids(prompt) for prompt in prompts]
        output = self._generate(ids, torch.cat(images) if images else None, prompts[0]["stop_ids"])
        place = f"{mode}/batch/{name}"
        self.quantities.close(
            "batch_logits", output.first_logits, self.arrays[f"{place}/first_scores"], LOGITS
        )
        # The official code pads behind an end token where other rows go on.
        rows = [torch.tensor(ids) for ids in output.ids]
        padded = pad_sequence(rows, batch_first=True, padding_value=self.loader["pad_token_id"])
        self.quantities.close("batch_generated_ids", padded, self.arrays[f"{place}/generated"], 0.0)

    def _generate(self, ids: list[Tensor], pixels: Tensor | None, stop_ids: list[int]) -> Generated:
        decoding = Decoding(
            end_tokens=tuple(stop_ids),
            max_new_tokens=NEW_TOKENS,
            max_prompt=self.record.max_length,
        )
        return generate(self.model, ids, pixels, decoding, logits=True)

    def _input_ids(self, prompt: dict[str, Any]) -> Tensor:
        """The prompt's ids, computed from its turns and compared with the recorded ones."""
        mode, _, name = prompt["key"].partition("/")
        encoder = SampleEncoder(
            tokenizer=tokenizer_of(self.target / self.record.tokenizer),
            template=mode,
            semantics="faithful",
            max_length=self.record.max_length,
        )
        turns = [{"from": ROLES[role], "value": text} for role, text in self.turns[name]]
        has_image = prompt["image"] is not None
        ids = encoder.encode_prompt(turns, has_image=has_image)
        self.quantities.exact(
            "prompt_text", encoder.prompt(turns, has_image=has_image), prompt["prompt"]
        )
        self.quantities.close("prompt_ids", ids, np.array(prompt["input_ids"]), 0.0)
        return torch.from_numpy(ids)

    def _pixels(self, prompt: dict[str, Any]) -> Tensor | None:
        """[1, 3, S, S] of the prompt's image."""
        if prompt["image"] is None:
            return None
        raw = self.processor(open_image(self.base / "images" / prompt["image"]))
        return normalise(torch.from_numpy(raw)[None], self.table)
