"""The tiny recipes train along the curves in tests/golden_losses."""

import pytest

from tests.support.golden_losses import FOLDER, curve_of, read_curve, text_of
from tests.support.workplace import RECIPES, Workplace

pytestmark = pytest.mark.ranks


@pytest.mark.parametrize("recipe", RECIPES)
def test_tiny_recipe_follows_its_recorded_curve(workplace: Workplace, recipe: str) -> None:
    expected, found = read_curve(recipe), curve_of(workplace.run_dir(recipe))
    same = len(found) == len(expected) and all(
        step == number
        and loss == pytest.approx(recorded_loss, abs=1e-4)
        and norm == pytest.approx(recorded_norm, rel=1e-3)
        for (step, loss, norm), (number, recorded_loss, recorded_norm) in zip(
            found, expected, strict=True
        )
    )
    assert same, (
        f"{FOLDER.name}/{recipe}.txt does not hold this curve; if the change is meant, "
        f"`make golden-losses` records it\n{text_of(recipe, found)}"
    )


def test_curves_learn() -> None:
    """A curve whose loss stays where it was would not show a wrong optimizer step."""
    for recipe in RECIPES:
        losses = [loss for _, loss, _ in read_curve(recipe)]
        assert len(losses) >= 4 and min(losses[2:]) < losses[0] - 0.05, recipe
