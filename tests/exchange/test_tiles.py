"""A model of AnyRes is asked as a plain reference computes it, and goes out and comes back: its
tiles, its newline vector, its pinpoints.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoImageProcessor, LlavaNextProcessor

from densekit.errors import DataError
from densekit.exchange.export.answers import answers_of_stock
from densekit.exchange.export.llava_hf import write_llava_hf
from densekit.exchange.export.official import write_official
from densekit.exchange.export.own import write_own
from densekit.exchange.official.importing import import_folder
from densekit.exchange.pipeline import Answer, Pipeline, load_pipeline
from densekit.exchange.source import open_source
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.spec.anyres import AnyRes
from densekit.spec.imported import ImportRequest
from tests.exchange.official_folders import edit_config, stage1
from tests.exchange.tiled import PINPOINTS, newline, tiled

Model = DenseConnectorForConditionalGeneration
QUESTIONS = ("What is it?", "Describe the picture in a few words.", "How many legs has a spider?")
SIZES = ((200, 90), (33, 70), None)


def picture(size: tuple[int, int]) -> Image.Image:
    across = Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", (across, across.rotate(90), across.rotate(180)))


def load(folder: Path, golden_exchange: Path, to: Path) -> Path:
    import_folder(ImportRequest(folder=folder, to=to, search=(golden_exchange / "base",)))
    return to


@pytest.fixture(scope="module")
def imported(golden_exchange: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tiles")
    return load(tiled(golden_exchange, place / "given"), golden_exchange, place / "imported")


@pytest.fixture(scope="module")
def pipeline(imported: Path) -> Pipeline:
    return load_pipeline(imported)


def answers(pipeline: Pipeline) -> list[Answer]:
    """To every question, in one batch."""
    shown = [None if size is None else picture(size) for size in SIZES]
    prompts = [pipeline.question(q, i) for q, i in zip(QUESTIONS, shown, strict=True)]
    return pipeline.answers(prompts, max_new_tokens=16)


def plain(model: Model, pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The specification, tile by tile: [N, H] of one image."""
    anyres = model.config.anyres_spec
    assert anyres is not None and model.image_newline is not None
    tiles = torch.cat([model.projector(model.encode_images(tile[None])) for tile in pixels])
    across, down = anyres.chosen(size)
    columns, rows = across // 56, down // 56
    grid = tiles[1:].view(rows, columns, 4, 4, -1).permute(4, 0, 2, 1, 3)
    grid = grid.reshape(-1, rows * 4, columns * 4)
    width, height = size
    if width / height > columns / rows:
        cut = (rows * 4 - int(height * (columns * 4 / width))) // 2
        grid = grid[:, cut : rows * 4 - cut]
    else:
        cut = (columns * 4 - int(width * (rows * 4 / height))) // 2
        grid = grid[:, :, cut : columns * 4 - cut]
    ends = model.image_newline.weight[:, None, None].expand(-1, grid.shape[1], 1)
    return torch.cat([tiles[0], torch.cat([grid, ends], dim=2).flatten(1).T])


@torch.no_grad()
def test_answers_are_those_of_a_plain_reference(pipeline: Pipeline) -> None:
    model = pipeline.model
    given = answers(pipeline)
    for number, size in enumerate(SIZES):
        if size is None:
            continue
        prompt = pipeline.question(QUESTIONS[number], picture(size))
        assert prompt.pixels is not None and len(prompt.pixels) > 2
        image = plain(model, prompt.pixels, size)
        (ours,) = model.image_embeddings(prompt.pixels, [size])
        assert torch.allclose(ours, image, atol=1e-6)
        embed = model.get_input_embeddings()
        (tag,) = (prompt.ids == -200).nonzero().flatten().tolist()
        before, after = prompt.ids[:tag], prompt.ids[tag + 1 :]
        assert prompt.tokens == len(before) + len(image) + len(after)
        ids: list[int] = []
        row = torch.cat([embed(before), image, embed(after)])
        with model.stock_attention():
            while len(ids) < 16 and not (ids and ids[-1] in pipeline.encoder.end_tokens):
                ids.append(
                    int(model.language_model(inputs_embeds=row[None]).logits[0, -1].argmax())
                )
                row = torch.cat([row, embed(torch.tensor(ids[-1:]))])
        assert list(given[number].ids) == ids


def test_few_tiles_pass_the_tower_at_a_time(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answers(pipeline)
    passed: list[int] = []
    dense = pipeline.model._dense_features

    def counted(pixels: Tensor) -> Tensor:
        passed.append(len(pixels))
        return dense(pixels)

    monkeypatch.setattr("densekit.model.vlm.VIEWS_PER_PASS", 2)
    monkeypatch.setattr(pipeline.model, "_dense_features", counted)
    assert [answer.ids for answer in answers(pipeline)] == [answer.ids for answer in whole]
    assert max(passed) == 2 and len(passed) > 2


def test_sizes_and_tiles_have_to_agree(pipeline: Pipeline) -> None:
    prompt = pipeline.question("What?", picture((200, 90)))
    assert prompt.pixels is not None
    with pytest.raises(ValueError, match="give image_sizes"):
        pipeline.model.generate([prompt.ids], prompt.pixels)
    with pytest.raises(ValueError, match=r"3 tiles given, .* have 5"):
        pipeline.model.generate([prompt.ids], prompt.pixels[:3], image_sizes=[(100, 100)])


@pytest.mark.parametrize("size", [(300, 1), (1, 300), (1, 1)])
def test_a_picture_one_pixel_high_is_asked(pipeline: Pipeline, size: tuple[int, int]) -> None:
    prompt = pipeline.question("What is it?", picture((300, 300)).resize(size))
    assert pipeline.answers([prompt], max_new_tokens=2)[0].ids


def test_stock_llava_next_gives_the_same(
    pipeline: Pipeline, imported: Path, tmp_path: Path
) -> None:
    write_llava_hf(open_source(imported), tmp_path, dtype=None)
    values: dict[str, Tensor] = {}
    for number, size in enumerate(SIZES):
        image = None if size is None else picture(size)
        prompt = pipeline.question(QUESTIONS[number], image)
        values[f"{number}/ids"] = prompt.ids
        if prompt.pixels is not None and size is not None:
            values |= {f"{number}/pixels": prompt.pixels, f"{number}/size": torch.tensor(size)}
    stock = answers_of_stock(tmp_path, values)
    for number, answer in enumerate(answers(pipeline)):
        assert list(answer.ids) == stock[f"{number}/generated"].tolist()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlavaNextForConditionalGeneration"]
    assert config["image_grid_pinpoints"] == [[height, width] for width, height in PINPOINTS]
    stock_class: Any = AutoImageProcessor
    processor = stock_class.from_pretrained(tmp_path, backend="pil")
    for size in SIZES[:2]:
        assert size is not None
        made = processor(picture(size), return_tensors="pt")
        ours = pipeline.question("?", picture(size)).pixels
        assert ours is not None and torch.equal(made["pixel_values"][0], ours)
        assert made["image_sizes"].tolist() == [[size[1], size[0]]]


def test_sizes_of_which_stock_llava_next_counts_other_tokens() -> None:
    """It rounds to seven digits before it truncates: 47 * (8 / 188) is a little below 2."""
    anyres = AnyRes(pinpoints=PINPOINTS, merge="spatial_unpad")
    stock: Any = LlavaNextProcessor.__new__(LlavaNextProcessor)

    def differ(size: tuple[int, int]) -> bool:
        (columns, rows), (width, height) = anyres.grid(size, 56), size
        inside, ends = stock._get_unpadded_features(height, width, 4, 4, rows, columns)
        return 16 + int(inside + ends) != len(anyres.order(size, tile=56, side=4))

    assert not any(differ((w, h)) for w in range(20, 200, 11) for h in range(10, 200, 11))
    assert differ((188, 47)) and differ((47, 188))


def test_densekits_own_format_is_read_back(
    pipeline: Pipeline, imported: Path, tmp_path: Path
) -> None:
    write_own(open_source(imported), tmp_path, dtype=None)
    loaded = load_pipeline(tmp_path)
    assert loaded.conversation == pipeline.conversation
    assert answers(loaded) == answers(pipeline)
    narrow = load_pipeline(tmp_path, dtype=torch.bfloat16).model
    assert narrow.image_newline is not None
    assert torch.equal(narrow.image_newline.weight, newline())


def test_official_keys_come_back(
    imported: Path, golden_exchange: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    write_official(open_source(imported), tmp_path, merge=False, dtype=None)
    ours = load_file(tmp_path / "model.safetensors")
    theirs = load_file(imported.parent / "given" / "model.safetensors")
    assert ours.keys() == theirs.keys() and "model.image_newline" in ours
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    edit_config(tmp_path, image_grid_pinpoints=str([*PINPOINTS]))  # as the arguments write it
    again = load(tmp_path, golden_exchange, tmp_path / "again")
    assert open_source(again).anyres == open_source(imported).anyres
    assert answers(load_pipeline(again)) == answers(pipeline)


def test_other_merges_have_no_newline(golden_exchange: Path, tmp_path: Path) -> None:
    folder = tiled(golden_exchange, tmp_path / "given", mm_patch_merge_type="spatial")
    with pytest.raises(DataError, match=r"mm_patch_merge_type spatial, and .* image_newline"):
        load(folder, golden_exchange, tmp_path / "in")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.image_newline"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    source = open_source(load(folder, golden_exchange, tmp_path / "in"))
    assert source.newline_file is None and source.anyres is not None
    with pytest.raises(DataError, match="merge spatial cannot be written for stock"):
        write_llava_hf(source, tmp_path, dtype=None)


def test_stage_1_keeps_no_newline(golden_exchange: Path, tmp_path: Path) -> None:
    folder = stage1(golden_exchange, tmp_path / "given")
    stated = {"image_aspect_ratio": "anyres", "mm_patch_merge_type": "spatial_unpad"}
    edit_config(folder, **stated, image_grid_pinpoints=[[*size] for size in PINPOINTS])
    place = load(folder, golden_exchange, tmp_path / "in")
    with pytest.raises(DataError, match=r"end in a newline vector .*start a stage 2"):
        load_pipeline(place)
