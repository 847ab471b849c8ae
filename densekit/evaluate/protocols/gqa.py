"""GQA, testdev_balanced."""

from densekit.evaluate.protocols.common import LOADER
from densekit.evaluate.protocols.prompts import SHORT
from densekit.runs.benchmarks import Expected, Protocol, Quirk

PROTOCOL = Protocol(
    name="gqa",
    title="GQA",
    split="testdev_balanced",
    expected=Expected(
        questions=12_578,
        images=398,
        categories={
            "choose": 1_129,
            "compare": 589,
            "logical": 1_803,
            "query": 6_805,
            "verify": 2_252,
        },
        source="haotian-liu/LLaVA issue 584",
    ),
    layout="question",
    suffix=SHORT,
    decoding=LOADER,
    scorer="gqa",
    figure="accuracy",
    quirks=(
        Quirk(
            key="blanks",
            place="score",
            faithful="only trailing periods and case are ignored",
            fixed="blanks at the ends are ignored too",
        ),
    ),
    source="official runner, converter and evaluation document",
)
