"""A reader of samples without pixels and without a tokenizer: what is left is what a rank's host
does with entries, counts and steps. The benchmarks of that use it, and its tests.
"""

from pathlib import Path

import numpy as np

from densekit.data.annotations import Annotations
from densekit.data.index import SampleIndex
from densekit.data.pixels import ImageProcessor, ReadImage
from densekit.data.token_counts import TokenCounts
from densekit.spec.connector import Connector
from densekit.spec.types import Semantics
from densekit.spec.vision import ImageLayout
from densekit.text.encode import EncodedSample
from densekit.train.step_dataset import Encoder, SampleReader


class Words:
    """In the tokenizer's place: an id a word, and as long a computation as a token takes."""

    pad_id = 0
    max_length = 2048
    semantics: Semantics = "faithful"

    def encode(self, turns: list[dict[str, str]], *, has_image: bool) -> EncodedSample:
        words = " ".join(turn["value"] for turn in turns).split()
        ids = np.array([len(word) + sum(map(ord, word)) % 99 + 3 for word in words], dtype=np.int64)
        return EncodedSample(ids, ids, ())


class TextReader(SampleReader):
    """Without pixels."""

    def image(self, index: int) -> ReadImage | None:
        return None


def text_reader(
    annotations: Annotations, encoder: Encoder, counts: TokenCounts | None = None
) -> TextReader:
    """The reader of an annotation file."""
    return TextReader(
        samples=annotations,
        index=SampleIndex.of(annotations),
        encoder=encoder,
        image_folder=Path("none"),
        processor=ImageProcessor(
            resize="squash", size=4, mean=(0, 0, 0), std=(1, 1, 1), aspect_ratio="square"
        ),
        layout=ImageLayout(patches=576, connector=Connector(kind="none")),
        counts=counts,
    )
