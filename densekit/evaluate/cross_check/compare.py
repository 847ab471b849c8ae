"""Both opinions side by side: the same answers, the same score, and why a score may differ."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from densekit.evaluate.cross_check.samples import Imported
from densekit.runs.benchmarks import Protocol, Score

SCHEMA = 1
"""Of `densekit cross-check --json`."""
EXACT = ("closed",)
"""Scorers whose figure is a mean of exact matches, as lmms-eval's is."""
SHOWN = 3
"""Answers that differ, of each benchmark, that the report shows."""


@dataclass(frozen=True, kw_only=True)
class Differing:
    """A question that the two answered differently."""

    question_id: str
    densekit: str
    lmms_eval: str


@dataclass(frozen=True, kw_only=True)
class CrossCheck:
    """One benchmark, asked by both."""

    benchmark: str
    questions: int
    differing: tuple[Differing, ...]
    densekit: float | None
    """densekit's figure, on the protocol's scale; None where it has none."""
    lmms_eval: float
    """lmms-eval's exact match, in percent."""
    comparable: bool
    """Whether the two figures mean the same."""
    scored_differently: tuple[str, ...]
    """Questions with equal answers whose scores differ."""
    protocol_differences: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether every answer is the same, and where figures mean the same, every score."""
        return not self.differing and not (self.comparable and self.scored_differently)

    def report(self) -> Iterator[str]:
        """The finding, one line each."""
        same = self.questions - len(self.differing)
        yield f"{self.benchmark}: {same:,} of {self.questions:,} answers are the same"
        for each in self.differing[:SHOWN]:
            yield (
                f"  question {each.question_id}: densekit {each.densekit!r}, lmms-eval "
                f"{each.lmms_eval!r}"
            )
        if len(self.differing) > SHOWN:
            yield f"  and {len(self.differing) - SHOWN:,} more"
        ours = "no figure" if self.densekit is None else f"{self.densekit:.2f}"
        yield f"  densekit {ours}, lmms-eval {self.lmms_eval:.2f} (exact match)"
        if self.scored_differently:
            count = len(self.scored_differently)
            yield (
                f"  {count:,} equal answer{'' if count == 1 else 's'} scored differently, first "
                f"question {self.scored_differently[0]}"
            )
        yield from (f"  protocols differ: {text}" for text in self.protocol_differences)

    def as_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return {"agrees": self.agrees, **asdict(self)}


def compare_answers(
    protocol: Protocol,
    *,
    batch_size: int,
    texts: Mapping[str, str],
    scores: Mapping[str, Score],
    value: float | None,
    imported: Imported,
) -> CrossCheck:
    """What densekit's evaluator answered and scored (`texts`, `scores`, by question id, and the
    figure `value`) beside what lmms-eval did.
    """
    differing = tuple(
        Differing(question_id=name, densekit=text, lmms_eval=imported.texts[name])
        for name, text in texts.items()
        if imported.texts[name].strip() != text
    )
    apart = {each.question_id for each in differing}
    comparable = protocol.scorer in EXACT
    return CrossCheck(
        benchmark=protocol.name,
        questions=len(texts),
        differing=differing,
        densekit=value,
        lmms_eval=100 * imported.value,
        comparable=comparable,
        scored_differently=tuple(
            name
            for name, score in scores.items()
            if name not in apart and score.score != imported.scores[name]
        )
        if comparable
        else (),
        protocol_differences=tuple(differences(protocol, batch_size)),
    )


def differences(protocol: Protocol, batch_size: int) -> Iterator[str]:
    """How lmms-eval's task differs from the protocol, in words."""
    if protocol.scorer not in EXACT:
        yield (
            f"the figure is {protocol.figure} by the scorer `{protocol.scorer}`; lmms-eval's is "
            "the share of answers that equal a right one but for case and punctuation"
        )
    if batch_size > 1:
        yield f"densekit asked {batch_size} questions at a time, lmms-eval one"
    yield (
        "prompt, image aspect ratio and decoding are densekit's in both; lmms-eval's own task of a "
        "paper's benchmark asks otherwise (docs/evaluation.md)"
    )
