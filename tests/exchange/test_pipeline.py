"""A trained model answers alike whichever way it is loaded: as an import, in densekit's own format,
as a LoRA adapter, and as stock transformers do for the same ids.
"""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from densekit.data.pixels import open_image
from densekit.errors import DataError, UsageError
from densekit.exchange.export.answers import answers_of_stock
from densekit.exchange.export.llava_hf import write_llava_hf
from densekit.exchange.export.own import write_own
from densekit.exchange.official.importing import import_folder
from densekit.exchange.pipeline import Answer, Pipeline, load_pipeline
from densekit.exchange.source import open_source
from densekit.spec.imported import ImportRequest
from tests.support.needs import needs

QUESTIONS = ("What is it?", "Describe the picture in a few words.", "How many legs has a spider?")
PICTURES = ("img0.png", "img3.png", None)


@pytest.fixture(scope="module")
def imported(golden_exchange: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed full and LoRA checkpoints, imported."""
    place = tmp_path_factory.mktemp("imported")
    for kind in ("stage2", "lora"):
        folder = golden_exchange / "given" / "clip_dci" / kind
        search = (golden_exchange / "base",)
        import_folder(ImportRequest(folder=folder, to=place / kind, search=search))
    return place


@pytest.fixture(scope="module")
def pipeline(imported: Path) -> Pipeline:
    return load_pipeline(imported / "stage2")


def images(golden_exchange: Path) -> list[Image.Image | None]:
    folder = golden_exchange / "base" / "images"
    return [None if name is None else open_image(folder / name) for name in PICTURES]


def answers(pipeline: Pipeline, golden_exchange: Path) -> list[Answer]:
    """To every question, in one batch."""
    shown = images(golden_exchange)
    prompts = [pipeline.question(q, i) for q, i in zip(QUESTIONS, shown, strict=True)]
    return pipeline.answers(prompts, max_new_tokens=16)


def test_one_by_one_as_in_a_batch(pipeline: Pipeline, golden_exchange: Path) -> None:
    together = answers(pipeline, golden_exchange)
    for number, image in enumerate(images(golden_exchange)):
        pieces: list[str] = []
        prompt = pipeline.question(QUESTIONS[number], image)
        (alone,) = pipeline.answers([prompt], max_new_tokens=16, on_text=pieces.append)
        assert alone == together[number]
        assert "".join(pieces) == alone.text


def test_stock_transformers_give_the_same_ids(
    pipeline: Pipeline, imported: Path, golden_exchange: Path, tmp_path: Path
) -> None:
    (tmp_path / "hf").mkdir()
    write_llava_hf(open_source(imported / "stage2"), tmp_path / "hf", dtype=None)
    values: dict[str, torch.Tensor] = {}
    for number, image in enumerate(images(golden_exchange)):
        prompt = pipeline.question(QUESTIONS[number], image)
        values[f"{number}/ids"] = prompt.ids
        if prompt.pixels is not None:
            values[f"{number}/pixels"] = prompt.pixels
    stock = answers_of_stock(tmp_path / "hf", values)
    for number, answer in enumerate(answers(pipeline, golden_exchange)):
        assert list(answer.ids) == stock[f"{number}/generated"].tolist()


def test_densekits_own_format_is_read_back(
    pipeline: Pipeline, imported: Path, golden_exchange: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    write_own(open_source(imported / "stage2"), own, dtype=None)
    loaded = load_pipeline(own)
    assert loaded.conversation == pipeline.conversation
    assert answers(loaded, golden_exchange) == answers(pipeline, golden_exchange)
    narrow = load_pipeline(own, dtype=torch.bfloat16).model
    assert narrow.language_model.dtype == torch.bfloat16
    for part in ("vision_tower", "projector"):
        ours, exact = getattr(narrow, part).state_dict(), getattr(pipeline.model, part).state_dict()
        assert all(torch.equal(ours[name], value) for name, value in exact.items())
    config = own / "config.json"
    stated = json.loads(config.read_text())
    del stated["conversation"]
    config.write_text(json.dumps(stated))
    with pytest.raises(DataError, match="does not say how prompts are made"):
        load_pipeline(own)
    with pytest.raises(UsageError, match=r"densekit's own format: `densekit chat`"):
        open_source(own)


def test_adapters_are_merged(pipeline: Pipeline, imported: Path, golden_exchange: Path) -> None:
    lora = load_pipeline(imported / "lora")
    merged = lora.model.language_model.state_dict()
    base = pipeline.model.language_model.state_dict()
    assert any(not torch.equal(merged[name], value) for name, value in base.items())
    assert not any("lora" in name for name in merged)
    assert len(answers(lora, golden_exchange)) == len(QUESTIONS)


def test_half_precision_answers(imported: Path, golden_exchange: Path) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        half = load_pipeline(imported / "stage2", dtype=dtype)
        assert all(answer.ids for answer in answers(half, golden_exchange))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gpu_answers(
    pipeline: Pipeline, imported: Path, golden_exchange: Path, dtype: torch.dtype
) -> None:
    if not torch.cuda.is_available():
        needs("gpu", "torch sees no CUDA device")
    loaded = load_pipeline(imported / "stage2", dtype=dtype, device="cuda")
    given = answers(loaded, golden_exchange)
    assert all(answer.ids for answer in given)
    if dtype == torch.float32:
        assert given == answers(pipeline, golden_exchange)


def test_a_template_without_its_tokens_is_refused(imported: Path) -> None:
    with pytest.raises(DataError, match=r"llama_3 ends an answer with <\|eot_id\|>.*--template"):
        load_pipeline(imported / "stage2", template="llama_3")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"model_type": "llava_llama", "mm_vision_tower": "x"}, "read it with `densekit import`"),
        ({"model_type": "llava"}, "for stock transformers"),
        ({"model_type": "llama"}, "a model of type llama without a connector"),
        (None, "neither a run directory nor a folder"),
    ],
)
def test_other_folders_are_told_apart(
    tmp_path: Path, config: dict[str, str] | None, match: str
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=match):
        load_pipeline(tmp_path)
