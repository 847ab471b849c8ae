"""The base of every frozen type of `spec`, and the numbers that fields are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
LayerIndex = Annotated[int, Field(ge=0, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
"""What transformers' set_seed takes."""


class Part(BaseModel):
    """Unknown keys are errors and values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def has_field(part: BaseModel, dotted: str) -> bool:
    """Whether `dotted` (as in `optimizer.learning_rate`) names a field of `part`."""
    name, _, rest = dotted.partition(".")
    if name not in type(part).model_fields:
        return False
    value = getattr(part, name)
    return not rest or (isinstance(value, BaseModel) and has_field(value, rest))
