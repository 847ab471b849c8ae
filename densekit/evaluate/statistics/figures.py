"""Reported figures as functions of sums over what is resampled (images), so that thousands of
resamplings cost one matrix product.

A scorer's `accuracy` is covered; another figure needs a line of FIGURES, and `table_of` checks that
both ways of computing it agree.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from densekit.errors import DataError
from densekit.evaluate.scorers import mmbench, mme, sqa
from densekit.runs.benchmarks import Protocol, Score

Floats = npt.NDArray[np.float64]
Row = tuple[str, str, int, float]
"""Cluster, stratum, column, and what it adds to the sum."""
AGREES = 1e-6
"""Of a figure in percent: the sums round in another order than the scorer."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """What one run's scores sum to, cluster by cluster."""

    clusters: tuple[str, ...]
    """Sorted; the same in every run of the same questions."""
    strata: npt.NDArray[np.int64]
    """(C,): clusters are drawn within their stratum."""
    sums_CK: Floats
    figure: Callable[[Floats], Floats]
    """(..., K) sums over clusters -> (...) figure."""


@dataclass(frozen=True, kw_only=True)
class _Figure:
    rows: Callable[[Sequence[Score]], list[Row]]
    of_sums: Callable[[Floats], Floats]


def _mean_rows(scores: Sequence[Score]) -> list[Row]:
    return [
        row
        for score in scores
        for row in ((score.cluster, "", 0, score.score), (score.cluster, "", 1, 1.0))
    ]


def _image_rows(scores: Sequence[Score]) -> list[Row]:
    return _mean_rows([score for score in scores if score.category == sqa.IMAGE])


def _circular_rows(scores: Sequence[Score]) -> list[Row]:
    """A question with all its rotations is one, of its first row's image."""
    rotations: defaultdict[int, list[Score]] = defaultdict(list)
    for score in scores:
        rotations[mmbench.base_index(score.question_id)].append(score)
    return _mean_rows([min(rows, key=lambda row: row.score) for rows in rotations.values()])


def _mean(sums: Floats) -> Floats:
    found: Floats = 100 * sums[..., 0] / sums[..., 1]
    return found


def _f1_rows(scores: Sequence[Score], names: Sequence[str]) -> list[Row]:
    """For each of `names` two columns: twice the true positives, and these with both kinds of
    errors. An answer that is neither yes nor no counts as the wrong one.
    """
    rows = []
    for score in scores:
        column = 2 * names.index(score.category) if len(names) > 1 else 0
        yes = (
            score.gold == "yes",
            score.parsed == "yes" or (not score.parsed and score.gold == "no"),
        )
        rows.append((score.cluster, "", column, 2.0 * all(yes)))
        rows.append((score.cluster, "", column + 1, float(sum(yes))))
    return rows


def _pope_rows(scores: Sequence[Score]) -> list[Row]:
    return _f1_rows(scores, sorted({score.category for score in scores}))


def _pooled_rows(scores: Sequence[Score]) -> list[Row]:
    return _f1_rows(scores, ())


def _f1(sums: Floats) -> Floats:
    """The mean of the parts' F1, 2 TP/(2 TP + FP + FN); 0 for a part where all three are 0."""
    found: Floats = 100 * np.mean(sums[..., ::2] / np.maximum(sums[..., 1::2], 1), axis=-1)
    return found


def _perception_rows(scores: Sequence[Score]) -> list[Row]:
    """For each category its right answers, its images with both right, and its questions. Images
    are drawn within their category, of which there are always as many.
    """
    images: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for score in scores:
        if score.category in mme.PERCEPTION:
            images[score.category, score.cluster].append(score.score)
    names = sorted({category for category, _ in images})
    rows = []
    for (category, image), rights in images.items():
        column = 3 * names.index(category)
        for offset, value in enumerate((sum(rights), min(rights), len(rights))):
            rows.append((f"{category}/{image}", category, column + offset, float(value)))
    return rows


def _perception(sums: Floats) -> Floats:
    right, both, questions = sums[..., ::3], sums[..., 1::3], sums[..., 2::3]
    found: Floats = 100 * np.sum((right + mme.PER_IMAGE * both) / questions, axis=-1)
    return found


MEAN = _Figure(rows=_mean_rows, of_sums=_mean)
FIGURES: dict[tuple[str, str], _Figure] = {
    ("sqa", "image_accuracy"): _Figure(rows=_image_rows, of_sums=_mean),
    ("mmbench", "circular_accuracy"): _Figure(rows=_circular_rows, of_sums=_mean),
    ("pope", "f1"): _Figure(rows=_pope_rows, of_sums=_f1),
    ("yes_no", "f1"): _Figure(rows=_pooled_rows, of_sums=_f1),
    ("mme", "perception"): _Figure(rows=_perception_rows, of_sums=_perception),
}
"""By scorer and figure, where the figure is not the mean of all scores."""


def table_of(protocol: Protocol, scores: Sequence[Score], value: float) -> Table:
    """The sums of a run's scores, whose reported figure is `value`.

    Raises DataError where the figure of these scores is another number, and for a figure that is
    neither `accuracy` nor listed in FIGURES.
    """
    known = FIGURES.get((protocol.scorer or "", protocol.figure))
    if known is None and protocol.figure != "accuracy":
        raise DataError(
            f"{protocol.title}: nothing says how its figure `{protocol.figure}` is resampled; add "
            f"it to FIGURES in {Path(__file__).name}"
        )
    figure = known or MEAN
    rows = figure.rows(scores)
    clusters = sorted({row[0] for row in rows})
    place = {name: number for number, name in enumerate(clusters)}
    width = 1 + max((row[2] for row in rows), default=0)
    cells = [place[cluster] * width + column for cluster, _, column, _ in rows]
    sums = np.bincount(cells, [row[3] for row in rows], minlength=len(clusters) * width)
    stratum = {row[0]: row[1] for row in rows}
    names = sorted(set(stratum.values()))
    table = Table(
        clusters=tuple(clusters),
        strata=np.array([names.index(stratum[name]) for name in clusters], dtype=np.int64),
        sums_CK=sums.reshape(len(clusters), width).astype(np.float64),
        figure=figure.of_sums,
    )
    again = float(table.figure(table.sums_CK.sum(axis=0)))
    if not abs(again - value) <= AGREES:  # nor where it is NaN
        raise DataError(
            f"{protocol.title}: the stored value is {value:.4f}, and its scores make {again:.4f}; "
            "score its answers again (`densekit evaluate`)"
        )
    return table
