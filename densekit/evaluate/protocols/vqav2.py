"""VQAv2 on its validation split: the test-dev server takes submissions and does not score them."""

from densekit.evaluate.protocols.common import LOADER, TEN_ANSWERS
from densekit.evaluate.protocols.prompts import SHORT
from densekit.runs.benchmarks import Expected, Protocol

PROTOCOL = Protocol(
    name="vqav2",
    title="VQAv2",
    split="val",
    expected=Expected(questions=214_354, source="EvalScope's adapter of the validation split"),
    layout="question",
    suffix=SHORT,
    decoding=LOADER,
    scorer="ten_answers",
    figure="accuracy",
    other_protocol=(
        "the paper's split is test-dev, whose server hangs since November 2025; validation scores "
        "about 2 less"
    ),
    quirks=(TEN_ANSWERS,),
    source="official runner and converter",
)
