"""The tables of several runs on one benchmark, after a check that they were asked the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from densekit.errors import DataError
from densekit.evaluate.arms import Member
from densekit.evaluate.statistics.figures import Table, table_of
from densekit.runs.benchmarks import Protocol, Score
from densekit.runs.evaluations import StoredResult, read_plan

ALIKE: Mapping[str, str] = {
    "data_sha256": "other data (questions or right answers)",
    "prompt_sha256": "other prompts",
    "dtype": "another dtype",
    "batch_size": "another batch size",
    "split": "another split",
}
"""Fields of a result that must be equal, and what it means when they are not."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One benchmark of several runs."""

    protocol: Protocol
    results: Sequence[StoredResult]
    scores: Sequence[tuple[Score, ...]]
    tables: Sequence[Table]

    @property
    def values(self) -> list[float]:
        """The reported figure of every run."""
        return [float(result.value) for result in self.results if result.value is not None]

    @property
    def incomplete(self) -> str:
        """`INCOMPLETE: 200 of 12,578 questions` where a limit was set; else empty."""
        result = self.results[0]
        if result.complete:
            return ""
        return f"INCOMPLETE: {result.questions:,} of {result.available:,} questions"


def asked_alike(benchmark: str, members: Sequence[Member]) -> Asked | None:
    """What several runs scored on a benchmark; None where one of them has no value there.

    Raises DataError for runs that were not asked the same questions in the same way.
    """
    pairs = [member.results.get(benchmark) for member in members]
    found = [pair for pair in pairs if pair is not None and pair[1].value is not None]
    if len(found) < len(members):
        return None
    results = [result for _, result in found]
    first, where = results[0], members[0].path
    for result, member in zip(results, members, strict=True):
        for field, difference in ALIKE.items():
            if getattr(result, field) != getattr(first, field):
                raise DataError(
                    f"{first.title}: {member.path} was asked with {difference} than {where}; "
                    f"evaluate both alike (`densekit evaluate`)"
                )
    scores = [member.scores(benchmark) for member in members]
    ids = [[(score.question_id, score.cluster) for score in each] for each in scores]
    for member, named in zip(members, ids, strict=True):
        if sorted(named) != sorted(ids[0]):
            raise DataError(
                f"{first.title}: {member.path} was asked {len(named):,} questions and {where} "
                f"{len(ids[0]):,}, or others of them; evaluate both with the same --limit"
            )
    _refuse_other_images(benchmark, members)
    protocol = found[0][0].evaluation.asked(benchmark).protocol
    tables = [
        table_of(protocol, each, float(result.value or 0))
        for each, result in zip(scores, results, strict=True)
    ]
    return Asked(protocol=protocol, results=results, scores=scores, tables=tables)


def _refuse_other_images(benchmark: str, members: Sequence[Member]) -> None:
    """Raises DataError where a question's image has other bytes than the first run's. Plans of
    equal hash have equal images; others may differ in their order alone.
    """
    first, _ = members[0].results[benchmark]
    known = first.evaluation.asked(benchmark)
    images: dict[str, str | None] = {}
    for member in members[1:]:
        folder, result = member.results[benchmark]
        asked = folder.evaluation.asked(benchmark)
        if asked.plan_sha256 == known.plan_sha256:
            continue
        images = images or {
            planned.question_id: planned.image_sha256 for planned in read_plan(first, known)
        }
        for planned in read_plan(folder, asked):
            if planned.image_sha256 != images.get(planned.question_id):
                raise DataError(
                    f"{result.title}: {member.path} was shown another image with question "
                    f"{planned.question_id} than {members[0].path}; evaluate both on the same data"
                )
