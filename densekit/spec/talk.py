"""What the process that answers prompts is asked, and what it prints for programs."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from densekit.spec.part import Number, Part, PositiveInt, Seed
from densekit.spec.types import MAX_TEMPERATURE, Device, Dtype
from densekit.spec.video import VideoSettings

Temperature = Annotated[Number, Field(ge=0, le=MAX_TEMPERATURE)]


class TalkSettings(Part):
    """How a model is loaded, and how it answers."""

    model: Path
    """A complete run directory, or a folder of `densekit import` or `export --format densekit`."""
    device: Device
    dtype: Dtype
    """Of the language model."""
    template: str | None = None
    """Of conversations; None: the one that the model was trained with."""
    max_new_tokens: PositiveInt
    temperature: Temperature = 0.0
    """0: greedy."""
    seed: Seed = 0
    """Of what is sampled."""


class ChatRequest(TalkSettings):
    """A conversation in the terminal."""

    image: Path | None = None
    folder: Path
    """What the path of a picture is relative to."""
    seen: tuple[Path, ...] = ()
    """The folders that pictures can be in, where others are not mounted; (): any."""


class PromptLine(Part):
    """One question, asked by itself: a line of a file of prompts."""

    prompt: Annotated[str, Field(min_length=1)]
    image: str | None = None
    """Relative to the folder of the file, or absolute."""
    video: str | None = None
    """Likewise; a question is about an image, a video, or neither."""
    id: str | int | None = None
    """Handed through to the answer."""

    @model_validator(mode="after")
    def _one_thing(self) -> "PromptLine":
        if self.image is not None and self.video is not None:
            raise ValueError("a question is about an image or a video, not both")
        return self

    @property
    def shown(self) -> str | None:
        """The file that the question is about."""
        return self.image or self.video


class GenerateRequest(TalkSettings):
    """Questions, each asked by itself."""

    prompts: tuple[PromptLine, ...] = ()
    """Their images are absolute."""
    file: Path | None = None
    """More of them, a JSON object per line."""
    video: VideoSettings = VideoSettings()
    """How videos are looked at."""
    batch_size: PositiveInt
    as_json: bool


class TalkRequest(Part):
    """One of the two."""

    chat: ChatRequest | None = None
    generate: GenerateRequest | None = None

    @property
    def settings(self) -> TalkSettings:
        """What both say."""
        asked = self.chat or self.generate
        assert asked is not None
        return asked


class AnswerLine(Part):
    """The answer to one question."""

    id: str | int | None
    prompt: str
    image: str | None
    video: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Not in the JSON where there is none, as `frames`."""
    frames: int = Field(default=0, exclude_if=lambda value: not value)
    """Frames of the video that were seen."""
    answer: str
    finish: Literal["end", "length"]
    """By an end token, or because max_new_tokens or the model's positions ran out."""
    prompt_tokens: PositiveInt
    """With those of the image."""
    new_ids: tuple[int, ...]
    """With the end token, where there is one."""


class GenerateReport(Part):
    """What `densekit generate --json` prints."""

    model: str
    template: str
    device: Device
    dtype: Dtype
    max_new_tokens: PositiveInt
    temperature: Temperature
    seed: Seed
    answers: tuple[AnswerLine, ...]
