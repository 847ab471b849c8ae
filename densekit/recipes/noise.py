"""How far a score varies without any difference in the recipe, what a recipe is held against, and
what a measuring set-up must show first: the parts of recipes/paper.yaml that verdicts rest on.

They are fixed before any run, so that no result can choose its own yardstick.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from densekit.spec.part import Number, Part, PositiveFloat, PositiveInt

Step = Literal["scorer", "runner"]
"""What is calibrated: the scorer, by an official answer file; the runner, by released weights."""


class Noise(Part):
    """The noise of one benchmark's figure, on the scale of the paper's tables."""

    seed_sd: PositiveFloat
    """Standard deviation over trainings of one recipe."""
    seed_source: str
    """Measured on what, or `assumed`."""
    decoding_sd: Number = Field(default=0.0, ge=0)
    """Over evaluations of one checkpoint in several environments; 0 where nobody reports it."""
    decoding_source: str | None = None
    question_sd: PositiveFloat
    """Of the difference of two models, over the questions that might have been drawn."""
    questions: PositiveInt
    """That `question_sd` holds for."""

    @model_validator(mode="after")
    def _sourced(self) -> Self:
        if bool(self.decoding_sd) != (self.decoding_source is not None):
            raise ValueError("`decoding_sd` and `decoding_source` belong together")
        return self


class Baseline(Part):
    """What the paper shows recipes to be better than."""

    than: str
    """A recipe, or somebody else's model."""
    recipes: tuple[str, ...]


class CalibrationTarget(Part):
    """A number that a set-up must hit before its others are believed."""

    step: Step
    model: str
    """Whose answers or weights are used."""
    benchmark: str
    value: Number
    tolerance: PositiveFloat
    source: str
