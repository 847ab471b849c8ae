"""VizWiz on its validation split: the server of the test split is closed."""

from densekit.evaluate.protocols.common import LOADER, TEN_ANSWERS
from densekit.evaluate.protocols.prompts import SHORT
from densekit.runs.benchmarks import Protocol

UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
"""From memory: no recorded prompt holds it."""

PROTOCOL = Protocol(
    name="vizwiz",
    title="VizWiz",
    split="val",
    expected=None,
    layout="question",
    suffix=UNANSWERABLE + SHORT,
    decoding=LOADER,
    scorer="ten_answers",
    figure="accuracy",
    other_protocol="the paper's split is test, whose server is closed since December 2025",
    quirks=(TEN_ANSWERS,),
    source="official runner; the sentence of its question file is from memory",
)
