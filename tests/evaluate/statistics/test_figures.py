"""The figures as sums over images: equal to the scorers', whatever the answers."""

import random

import numpy as np
import pytest

from densekit.errors import DataError
from densekit.evaluate.protocols import benchmark_names, get_protocol
from densekit.evaluate.scorers.mme import PERCEPTION
from densekit.evaluate.statistics.figures import FIGURES, table_of
from densekit.runs.benchmarks import Protocol, Score
from tests.evaluate.made import score
from tests.evaluate.scored_runs import figure


def drawn_scores(protocol: Protocol, rng: random.Random) -> list[Score]:
    """Twelve images with some questions each, in the categories that the benchmark has."""
    scores = []
    for image in range(12):
        name = f"i{image}"
        for number in range(2 if protocol.name == "mme" else rng.randint(1, 4)):
            gold = rng.choice(("yes", "no"))
            said = rng.choice(("yes", "no", "")) if image else gold
            category = {
                "pope": rng.choice(("random", "popular", "adversarial")),
                "sqa": rng.choice(("image", "text")),
                "mme": (*PERCEPTION[:2], "code_reasoning")[image % 3],
                "seed": f"image/{image % 2 + 1}",
            }.get(protocol.name, "")
            row = f"{number * 1_000_000 + image}" if "mmb" in protocol.name else f"{name}.{number}"
            value = float(gold == said) if gold else 0.3
            scores.append(
                score(row, value, category=category, gold=gold, parsed=said, cluster=name)
            )
    return scores


SCORED = [name for name in benchmark_names() if get_protocol(name).scorer]


@pytest.mark.parametrize("name", SCORED)
def test_the_sums_make_the_figure_of_the_scorer(name: str) -> None:
    protocol = get_protocol(name)
    for seed in range(20):
        scores = drawn_scores(protocol, random.Random(seed))
        try:
            value = figure(protocol, scores)
        except DataError:  # a category without a true positive
            continue
        assert value is not None
        table = table_of(protocol, scores, value)
        assert table.figure(table.sums_CK.sum(axis=0)) == pytest.approx(value)
        assert list(table.clusters) == sorted(table.clusters)


def test_a_figure_of_drawn_images_is_that_of_their_scores() -> None:
    """An image that is drawn twice counts twice, and one that is not drawn does not count."""
    protocol = get_protocol("pope")
    scores = [
        score(f"{image}.{n}", right, category=part, gold=gold, parsed=said, cluster=image)
        for image in "abc"
        for n, (part, gold, said, right) in enumerate(
            [
                ("random", "yes", "yes", 1),
                ("popular", "yes", "yes", 1),
                ("adversarial", "yes", "yes", 1),
                ("random", "no", "yes", 0),
            ]
            + [("popular", "no", "yes", 0)] * "abc".index(image)
        )
    ]
    table = table_of(protocol, scores, float(figure(protocol, scores) or 0))
    weights = np.array([2.0, 0.0, 1.0])
    chosen = [s for s in scores for _ in range(int(weights["abc".index(s.cluster)]))]
    assert table.figure(weights @ table.sums_CK) == pytest.approx(figure(protocol, chosen))


def test_a_wrong_stored_value_is_noticed() -> None:
    scores = [score(n, n % 2, cluster=f"i{n}") for n in range(10)]
    assert table_of(get_protocol("gqa"), scores, 50).clusters == tuple(
        sorted(f"i{n}" for n in range(10))
    )
    with pytest.raises(
        DataError, match=r"the stored value is 50.0001, and its scores make 50.0000"
    ):
        table_of(get_protocol("gqa"), scores, 50.0001)


def test_a_figure_that_nobody_resamples_is_refused() -> None:
    protocol = get_protocol("gqa").model_copy(update={"figure": "median"})
    with pytest.raises(DataError, match="nothing says how its figure `median` is resampled"):
        table_of(protocol, [score(1, 1)], 100)


def test_every_reported_figure_can_be_resampled() -> None:
    for name in SCORED:
        protocol = get_protocol(name)
        assert protocol.figure == "accuracy" or (protocol.scorer, protocol.figure) in FIGURES


def test_rotations_of_a_question_are_one_question() -> None:
    protocol = get_protocol("mmb")
    scores = [
        score(1, 1),
        score(1_000_001, 0),
        score(2, 1, cluster="i2"),
        score(1_000_002, 1, cluster="i2"),
    ]
    table = table_of(protocol, scores, 50)
    assert table.sums_CK.tolist() == [[0, 1], [1, 1]]


def test_images_of_mme_are_drawn_within_their_category() -> None:
    scores = [
        score(f"{category}{image}{n}", 1, category=category, cluster=f"{image}")
        for category in PERCEPTION[:2]
        for image in range(3)
        for n in range(2)
    ]
    table = table_of(get_protocol("mme"), scores, 400)
    assert len(table.clusters) == 6 and np.bincount(table.strata).tolist() == [3, 3]
