"""ScienceQA: all test questions are asked, and the accuracy of those with an image is reported."""

from densekit.evaluate.protocols.common import LONG, PADDED_AS_STORED
from densekit.evaluate.protocols.prompts import LETTER
from densekit.runs.benchmarks import Expected, Protocol, Quirk

PROTOCOL = Protocol(
    name="sqa",
    title="SQA-I",
    split="test",
    expected=Expected(
        questions=4_241,
        categories={"image": 2_017, "text": 2_224},
        source="counted in ScienceQA's pid_splits.json and captions",
    ),
    layout="tagged",
    suffix=LETTER,
    decoding=LONG,
    scorer="sqa",
    figure="image_accuracy",
    quirks=(
        PADDED_AS_STORED,
        Quirk(
            key="strict_letters",
            place="score",
            faithful="`A`, `A. ...` and one `The answer is A.` are read; `A.` and `(A)` are wrong",
            fixed="letters as rules find them (scorers/letters.py)",
        ),
    ),
    source="official runner and evaluation script",
)
