"""The base of every frozen type of `spec`, and the numbers that fields are made of."""

from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from densekit.errors import DataError

MAX_COUNT = 10**9
"""Of anything that is counted; each field may have a nearer limit."""
MAX_NAME_BYTES = 255
"""Of one name in a path."""
MAX_REFERENCE = 2000
"""Characters of a path; Linux takes 4,096 bytes, and what is below a folder needs some of them."""


def not_a_flag(value: Any) -> Any:
    """`true` and `false` are 1 and 0 to Python and to pydantic, and a slip everywhere else."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


def _can_be_a_path(reference: str) -> str:
    """Every file system that runs are made on takes names of this length, and none takes longer."""
    if "\0" in reference:
        raise ValueError("a path cannot hold a NUL character")
    longest = max(len(name.encode(errors="surrogatepass")) for name in reference.split("/"))
    if longest > MAX_NAME_BYTES or len(reference) > MAX_REFERENCE:
        raise ValueError(
            f"a path of at most {MAX_REFERENCE:,} characters is needed, and names of at most "
            f"{MAX_NAME_BYTES} bytes in it"
        )
    return reference


PathReference = Annotated[str, AfterValidator(_can_be_a_path)]
"""`data:`, `models:` or `cache:` and a path below that root, or a path (densekit.spec.roots)."""
Number = Annotated[float, BeforeValidator(not_a_flag)]
PositiveInt = Annotated[int, Field(gt=0, le=MAX_COUNT, strict=True)]
PositiveFloat = Annotated[Number, Field(gt=0, le=1e6)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
LayerIndex = Annotated[int, Field(ge=0, le=1000, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
"""What transformers' set_seed takes."""


class Part(BaseModel):
    """Unknown keys are errors and values do not change after loading."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        defer_build=True,  # of its validator: a command uses few of the types that it imports
    )


P = TypeVar("P", bound=Part)


def read_part(kind: type[P], value: Any, *, source: object, remedy: str) -> P:
    """The frozen type that a JSON value holds.

    Raises DataError naming `source` (a file, or a line of one) and the first field that is wrong;
    it ends in `remedy`.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        problem = f"{field}: {first['msg']}" if field else first["msg"]
        raise DataError(f"{source}: {problem.replace('Value error, ', '')}; {remedy}") from None


def has_field(part: BaseModel, dotted: str) -> bool:
    """Whether `dotted` (as in `optimizer.learning_rate`) names a field of `part`."""
    name, _, rest = dotted.partition(".")
    if name not in type(part).model_fields:
        return False
    value = getattr(part, name)
    return not rest or (isinstance(value, BaseModel) and has_field(value, rest))
