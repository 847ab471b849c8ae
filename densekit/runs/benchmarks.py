"""The types of an evaluation: what is asked, what was answered, what it scored. The contract
between the evaluator, who writes them, and whoever reads a run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from densekit.spec.part import Number, Part, PositiveInt
from densekit.spec.types import AspectRatio, Semantics
from densekit.spec.video import VideoSettings

Place = Literal["data", "prompt", "image", "decoding", "score"]
"""Where in an evaluation something happens; what happens in the score can be changed afterwards."""
Layout = Literal["question", "ocr", "tagged", "options", "lettered", "hinted"]
"""How a question's fields become the text asked (densekit.evaluate.protocols.prompts)."""


class Decoding(Part):
    """How answers are generated; batch size 1 and fp16 are the official runners'."""

    do_sample: bool = False
    temperature: Number = Field(default=0, ge=0)
    num_beams: PositiveInt = 1
    max_new_tokens: PositiveInt
    batch_size: PositiveInt = 1
    dtype: Literal["fp16", "bf16", "fp32"] = "fp16"


class Expected(Part):
    """How large a benchmark's split is, by `source`."""

    questions: PositiveInt
    """Counted once each; MMBench's rotations of a question are one."""
    images: PositiveInt | None = None
    categories: Mapping[str, int] = Field(default_factory=dict)
    """Questions in each category; empty where the protocol does not count by category."""
    source: str


class Quirk(Part):
    """One thing that the official code does and a clean protocol would not."""

    key: str
    place: Place
    faithful: str
    fixed: str


class Protocol(Part):
    """Everything that decides a benchmark's number except model and data."""

    name: str
    """As in recipes/paper.yaml."""
    title: str
    split: str
    expected: Expected | None
    """None where no source states the counts."""
    layout: Layout
    suffix: str
    """Ends the text asked, its newline included; empty: nothing is added."""
    decoding: Decoding
    image_aspect_ratio: AspectRatio = "pad"
    """anyres is the model's, not the benchmark's: planned where its images have several tiles."""
    video: VideoSettings | None = Field(default=None, exclude_if=lambda value: value is None)
    """How a video is seen where questions are about one. Not in the JSON when null: it came later.
    """
    scorer: str | None
    """A file of densekit/evaluate/scorers; None: only a judge scores these answers."""
    figure: str
    """Which of the scorer's figures is the reported number."""
    other_protocol: str | None = None
    """Why the number is not the paper's, whatever the model; None: it can be compared."""
    quirks: tuple[Quirk, ...] = ()
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a model said to a question: special tokens removed, both ends stripped."""

    question_id: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What one answer came to."""

    question_id: str
    cluster: str
    """What the statistics resample: the image; the question itself where it has none."""
    category: str
    gold: str
    parsed: str
    """What was read out of the answer; empty where nothing was."""
    score: float
    """0 to 1."""
    note: str = ""
    """`unparsed`, `drawn`, `judge`: what the figure rests on besides the answer."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A benchmark's figures, and the score of every question they were made of."""

    benchmark: str
    semantics: Semantics
    value: float
    """On the scale of the paper's tables."""
    questions: int
    figures: Mapping[str, float]
    """Beside the value: per category, and what others report under the same name."""
    scores: tuple[Score, ...]
    notes: Mapping[str, int] = field(default_factory=dict)
    """How many scores carry each note."""
