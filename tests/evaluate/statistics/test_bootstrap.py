"""The cluster bootstrap against analytic standard errors."""

import math
import random

import numpy as np
import pytest

from densekit.errors import DataError
from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.scorers.mme import PERCEPTION
from densekit.evaluate.statistics.bootstrap import (
    CHUNK_CELLS,
    named_generator,
    replicates,
    standard_error,
)
from densekit.evaluate.statistics.figures import Table, table_of
from tests.evaluate.made import score
from tests.evaluate.scored_runs import figure

GQA = get_protocol("gqa")


def table(values: list[float], per_image: int = 1) -> Table:
    scores = [score(n, value, cluster=f"i{n // per_image:05}") for n, value in enumerate(values)]
    return table_of(GQA, scores, 100 * sum(values) / len(values))


def test_independent_questions_have_the_analytic_error() -> None:
    rng = random.Random(0)
    values = [float(rng.random() < 0.7) for _ in range(400)]
    tables = [table(values)]
    drawn = replicates(tables, name="iid", count=20_000)
    assert drawn.shape == (20_000, 1)
    p = sum(values) / 400
    assert standard_error(drawn[:, 0], tables[0]) == pytest.approx(
        100 * math.sqrt(p * (1 - p) / 399), rel=0.02
    )
    assert drawn.mean() == pytest.approx(100 * p, abs=0.1)


def test_questions_about_one_image_count_as_one_where_they_agree() -> None:
    rng = random.Random(1)
    images = [float(rng.random() < 0.5) for _ in range(100)]
    whole = table([value for value in images for _ in range(5)], per_image=5)
    alone = table(images)
    errors = [
        standard_error(replicates([each], name="x", count=20_000)[:, 0], each)
        for each in (whole, alone)
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-9)
    miller = 100 * math.sqrt(sum((v - np.mean(images)) ** 2 for v in images)) / 100
    assert errors[0] == pytest.approx(miller, rel=0.02)


def test_runs_share_their_draws() -> None:
    rng = random.Random(2)
    values = [float(rng.random() < 0.5) for _ in range(200)]
    better = [min(1.0, value + float(n % 20 == 0)) for n, value in enumerate(values)]
    tables = [table(values), table(better)]
    drawn = replicates(tables, name="paired", count=4000)
    paired = np.std(drawn[:, 1] - drawn[:, 0])
    difference = [b - a for a, b in zip(values, better, strict=True)]
    assert paired == pytest.approx(100 * np.std(difference) / math.sqrt(200), rel=0.05)
    assert paired < np.std(drawn[:, 0]) / 2


def test_draws_are_named_and_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = table([float(n % 3 == 0) for n in range(50)])
    first = replicates([values], name="a", count=100)
    assert np.array_equal(first, replicates([values], name="a", count=100))
    assert not np.array_equal(first, replicates([values], name="b", count=100))
    monkeypatch.setattr("densekit.evaluate.statistics.bootstrap.CHUNK_CELLS", 50 * 7)
    assert np.array_equal(first, replicates([values], name="a", count=100))
    assert named_generator("a").random() == named_generator("a").random()
    assert CHUNK_CELLS >= 1 << 20


def test_categories_of_mme_keep_their_size() -> None:
    """Two categories, one all right and one all wrong: nothing varies but within them."""
    scores = [
        score(f"{c}{i}{n}", float(c == 0), category=PERCEPTION[c], cluster=f"i{i}")
        for c in range(2)
        for i in range(5)
        for n in range(2)
    ]
    mme = get_protocol("mme")
    made = table_of(mme, scores, float(figure(mme, scores) or 0))
    assert set(replicates([made], name="m", count=50)[:, 0]) == {200.0}
    values = np.array([0.0, 2.0])
    assert standard_error(values, made) == pytest.approx(math.sqrt(2) * math.sqrt(10 / 8))


def test_nothing_is_drawn_from_one_image_or_from_different_ones() -> None:
    with pytest.raises(DataError, match="at least 2 images"):
        replicates([table([1.0, 0.0], per_image=2)], name="x")
    with pytest.raises(DataError, match="asked about other images"):
        replicates([table([1.0, 0.0]), table([1.0, 0.0, 1.0])], name="x")
