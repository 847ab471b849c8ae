"""LLaVA-Bench (in the wild): answers are written for a judge; no score of ours is the paper's."""

from densekit.evaluate.protocols.common import LONG
from densekit.runs.benchmarks import Expected, Protocol

PROTOCOL = Protocol(
    name="llava_w",
    title="LLaVA-W",
    split="test, 24 images",
    expected=Expected(questions=60, source="official evaluation document"),
    layout="question",
    suffix="",
    decoding=LONG,
    scorer=None,
    figure="",
    other_protocol="the paper's judge is gpt-4-0314, which is switched off",
    source="official runner",
)
