"""MathVista, testmini, its answers extracted by rules alone."""

from densekit.evaluate.protocols.common import LONG, PADDED_AS_STORED
from densekit.runs.benchmarks import Expected, Protocol, Quirk

PROTOCOL = Protocol(
    name="mathvista",
    title="Math",
    split="testmini",
    expected=Expected(questions=1_000, source="lupantech/MathVista"),
    layout="hinted",
    suffix="",
    decoding=LONG,
    scorer="mathvista",
    figure="accuracy",
    other_protocol=(
        "the paper's answers were extracted by gpt-4-0613, which is switched off since 2026-10-23"
    ),
    quirks=(
        PADDED_AS_STORED,
        Quirk(
            key="float_precision",
            place="score",
            faithful="a precision stored as 1.0 cannot round: such a question is always wrong",
            fixed="it is taken as 1",
        ),
    ),
    source="official runner and MathVista's calculate_score.py",
)
