"""MM-Vet: answers are written for a judge; no score of ours is the paper's."""

from densekit.evaluate.protocols.common import LONG
from densekit.runs.benchmarks import Expected, Protocol

PROTOCOL = Protocol(
    name="mmvet",
    title="MM-Vet",
    split="test",
    expected=Expected(questions=218, source="official evaluation document"),
    layout="question",
    suffix="",
    decoding=LONG,
    scorer=None,
    figure="",
    other_protocol="the paper's judge is a gpt-4 of 2024, which is switched off",
    source="official runner",
)
