"""An answer has to fit behind an image: known from the numbers, before a run directory exists."""

from pathlib import Path

import pytest

from densekit.data.annotations import Annotations
from densekit.errors import DataError
from densekit.launch.checks.answers import check_answers_fit
from densekit.recipes.load import load_recipe
from densekit.spec.roots import Roots
from tests.support.files import write_json
from tests.support.launching import entry

IMAGE_TOKENS = 576
"""Of CLIP-L/14 at 336 pixels, which the table of models knows."""


@pytest.mark.parametrize(
    ("max_length", "image", "refused"),
    [
        (IMAGE_TOKENS, "a.png", True),
        (16, "a.png", True),
        (IMAGE_TOKENS + 1, "a.png", False),  # the trainer counts labels
        (16, None, False),
    ],
)
def test_max_length_not_above_the_tokens_of_an_image(
    tmp_path: Path, max_length: int, image: str | None, refused: bool
) -> None:
    question = "<image>\nWhat?" if image else "Why?"
    path = write_json(
        tmp_path / "a.json",
        [entry(image=None, question="Why?"), entry(image=image, question=question)],
    )
    recipe = load_recipe("vicuna7b_clip_stage1", [f"data.max_length={max_length}"])
    annotations = Annotations.load(path)
    if not refused:
        return check_answers_fit(recipe, annotations, Roots())
    with pytest.raises(DataError) as caught:
        check_answers_fit(recipe, annotations, Roots())
    assert f"data.max_length is {max_length}" in str(caught.value)
    assert f"an image alone has {IMAGE_TOKENS} tokens" in str(caught.value)


@pytest.mark.parametrize("lora", ["lora=null", "lora={r: 8, alpha: 16}"])
def test_max_length_and_the_largest_image_of_several_tiles(tmp_path: Path, lora: str) -> None:
    """576 tokens of the whole image, and 48 rows of 48 with a newline each."""
    path = write_json(tmp_path / "a.json", [entry(image="a.png", question="<image>\nWhat?")])
    annotations = Annotations.load(path)
    row = "vicuna7b_clip_anyres_stage2"
    check_answers_fit(load_recipe(row, ["data.max_length=2929", lora]), annotations, Roots())
    said = r"max_length is 2928, but an image alone has up to 2928 tokens.*recipes have 4096"
    with pytest.raises(DataError, match=said):
        check_answers_fit(load_recipe(row, ["data.max_length=2928", lora]), annotations, Roots())
