"""Planned questions as what a model is given: prompt ids and pixels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from densekit.data.decoding import decode, decode_palette
from densekit.data.pixels import MAX_BYTES, ImageProcessor
from densekit.data.video import read_frames, require_decoder
from densekit.errors import DataError
from densekit.evaluate.protocols.prompts import human_turn
from densekit.files.hashing import file_sha256, json_sha256
from densekit.files.json_files import read_file
from densekit.model.frames import TaggedFrames
from densekit.model.preprocess import normalise
from densekit.runs.evaluations import PlannedQuestion
from densekit.spec.roots import Roots
from densekit.spec.video import VideoSettings
from densekit.text.encode import SampleEncoder


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Questions that are asked together."""

    planned: Sequence[PlannedQuestion]
    prompts: list[Tensor]
    """[T] ids of each, with IMAGE_TOKEN_ID where the image goes."""
    prompt_sha256: list[str]
    pixels: Tensor | None
    """[I, 3, S, S], normalised, in the questions' order, under AnyRes the tiles of all images;
    None: no question has an image.
    """
    image_sizes: Sequence[tuple[int, int]]
    """Width and height of each image."""
    frames: TaggedFrames | None = None
    """Whose images the pixels are where questions are about videos."""


class Preparer:
    """Makes batches; every image is compared with the digest that was planned."""

    def __init__(
        self,
        encoder: SampleEncoder,
        processor: ImageProcessor,
        roots: Roots,
        *,
        padded_as_stored: bool,
        video: VideoSettings | None = None,
    ) -> None:
        """`padded_as_stored`: an image with a palette is padded before it becomes RGB. Grey ones,
        on which the official code then fails, become RGB first. `video`: how a video is seen where
        questions are about one. Raises UsageError where none can be decoded.
        """
        if video is not None:
            require_decoder()
        self.video = video
        self.encoder, self.processor, self.roots = encoder, processor, roots
        self.padded_as_stored = padded_as_stored
        self.table = torch.from_numpy(processor.lookup_table())

    def __call__(self, planned: Sequence[PlannedQuestion]) -> Batch:
        """The batch. Raises DataError for an image that is missing, damaged or another one than
        was planned.
        """
        prompts = []
        for question in planned:
            has_image = question.image is not None
            turn = {"from": "human", "value": human_turn(question.asked, has_image=has_image)}
            prompts.append(self.encoder.encode_prompt([turn], has_image=has_image))
        shown = [self._frames(each) for each in planned if each.image]
        images = [frame for frames in shown for frame in frames]
        pixels = [torch.from_numpy(self.pixels_of(image)) for image in images]
        return Batch(
            planned=planned,
            prompts=[torch.from_numpy(ids) for ids in prompts],
            prompt_sha256=[json_sha256(ids.tolist()) for ids in prompts],
            pixels=normalise(torch.cat(pixels), self.table) if pixels else None,
            image_sizes=[image.size for image in images],
            frames=None
            if self.video is None
            else TaggedFrames(counts=[*map(len, shown)], pooled=self.video.pooled),
        )

    def _frames(self, planned: PlannedQuestion) -> list[Image.Image]:
        """The image of a question, or the frames of its video."""
        if self.video is None:
            return [self._image(planned)]
        assert planned.image is not None
        path = self.roots.resolve(planned.image)
        if file_sha256(path) != planned.image_sha256:
            raise _changed("video", path)
        return read_frames(path, self.video)

    def _image(self, planned: PlannedQuestion) -> Image.Image:
        assert planned.image is not None
        path = self.roots.resolve(planned.image)
        data = read_file(path, limit=MAX_BYTES, remedy="put it back")
        if hashlib.sha256(data).hexdigest() != planned.image_sha256:
            raise _changed("image", path)
        stored = decode_palette(data, path) if self.padded_as_stored else None
        return decode(data, path)[0] if stored is None else stored

    def pixels_of(self, image: Image.Image) -> np.ndarray:
        """uint8 [t, 3, S, S] of a decoded image, in its file's own mode or as RGB."""
        if self.padded_as_stored and image.mode == "P":
            image = self.processor.padded_as_stored(image)
        return self.processor.views(image)


def _changed(what: str, path: Path) -> DataError:
    return DataError(
        f"{what} {path} is not the one that this evaluation was made for: it changed since; put "
        "the original back, or remove the evaluation's folder to ask everything anew"
    )
