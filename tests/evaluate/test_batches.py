"""Planned questions as prompt ids and pixels: the image that was planned, padded as the protocol
says.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densekit.data.pixels import ImageProcessor
from densekit.errors import DataError
from densekit.evaluate.runner.asking import sampling_seed
from densekit.evaluate.runner.batches import Preparer
from densekit.runs.evaluations import PlannedQuestion
from densekit.spec.roots import Roots

MEAN = (0.5, 0.25, 0.75)


class Encoder:
    """Stands in for the encoder: the length of the text, and whether it has the tag."""

    def encode_prompt(self, conversations: list[dict[str, str]], *, has_image: bool) -> np.ndarray:
        (turn,) = conversations
        assert turn["value"].startswith("<image>\n") == has_image
        return np.array([len(turn["value"]), -200 if has_image else 0])


def picture(mode: str, size: tuple[int, int]) -> bytes:
    image = Image.linear_gradient("L").resize(size)
    colours = Image.merge("RGB", (image, image.rotate(180), image))
    data = io.BytesIO()
    (colours.quantize(16) if mode == "P" else colours.convert(mode)).save(data, "PNG")
    return data.getvalue()


def prepared(folder: Path, data: bytes, *, as_stored: bool) -> torch.Tensor:
    (folder / "x.png").write_bytes(data)
    processor = ImageProcessor(
        resize="shortest_edge", size=8, mean=MEAN, std=(1, 1, 1), aspect_ratio="pad"
    )
    roots = Roots(data=folder)
    prepare = Preparer(Encoder(), processor, roots, padded_as_stored=as_stored)  # type: ignore[arg-type]
    batch = prepare([planned(hashlib.sha256(data).hexdigest()), planned(None)])
    assert [len(prompt) for prompt in batch.prompts] == [2, 2]
    assert len(set(batch.prompt_sha256)) == 2
    assert batch.pixels is not None and batch.pixels.shape == (1, 3, 8, 8)
    return batch.pixels


def planned(image_sha256: str | None) -> PlannedQuestion:
    return PlannedQuestion(
        batch=0,
        question_id="1",
        asked="What?",
        image=image_sha256 and "data:x.png",
        image_sha256=image_sha256,
        question={},
    )


def test_padding_an_image_with_a_palette_as_stored_changes_its_colours(tmp_path: Path) -> None:
    wide = picture("P", (12, 6))
    stored, first = (prepared(tmp_path, wide, as_stored=each) for each in (True, False))
    assert not torch.equal(stored, first)
    square = picture("P", (12, 12))
    stored, first = (prepared(tmp_path, square, as_stored=each) for each in (True, False))
    assert torch.equal(stored, first)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_other_images_become_rgb_first(tmp_path: Path, mode: str) -> None:
    wide = picture(mode, (12, 6))
    stored, first = (prepared(tmp_path, wide, as_stored=each) for each in (True, False))
    assert torch.equal(stored, first)
    padding = first[0, :, 0, 0] + torch.tensor(MEAN)
    assert torch.allclose(padding, torch.tensor(MEAN), atol=2 / 255)


def test_an_image_that_was_not_planned_is_refused(tmp_path: Path) -> None:
    data = picture("RGB", (8, 8))
    prepared(tmp_path, data, as_stored=False)
    with pytest.raises(DataError, match=r"x.png is not the one that this evaluation was made for"):
        Preparer(
            Encoder(),  # type: ignore[arg-type]
            ImageProcessor(
                resize="squash", size=8, mean=MEAN, std=(1, 1, 1), aspect_ratio="square"
            ),
            Roots(data=tmp_path),
            padded_as_stored=False,
        )([planned("0" * 64)])


def test_the_generator_of_a_sampled_answer_is_named_by_question_and_seed() -> None:
    seeds = [sampling_seed(seed, name) for seed in (1, 2) for name in ("a", "b")]
    assert len(set(seeds)) == 4 and all(0 <= seed < 2**63 for seed in seeds)
    assert sampling_seed(42, "validation_Art_1") == sampling_seed(42, "validation_Art_1")
