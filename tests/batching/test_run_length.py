"""How long a run is: as its recipe's epochs, or as the steps that were asked for."""

import pytest

from densekit.batching.run_length import RunLength
from tests.support.runs import made_math


@pytest.mark.parametrize(
    ("optimizer", "epochs", "steps"),
    [
        ({"epochs": 3, "max_steps": None}, 3, None),
        ({"epochs": 3, "max_steps": 7}, None, 7),
    ],
)
def test_steps_that_are_asked_for_replace_the_epochs(
    optimizer: dict[str, int | None], epochs: int | None, steps: int | None
) -> None:
    math = made_math({"optimizer": optimizer, "ledger": {"U9": "fixed"}})
    length = RunLength.of(math)
    assert (length.epochs, length.max_steps, length.tail) == (epochs, steps, "fixed")
