"""POPE on COCO val2014, of the commit whose random part has 2,910 questions."""

from densekit.evaluate.protocols.common import LOADER
from densekit.evaluate.protocols.prompts import SHORT
from densekit.runs.benchmarks import Expected, Protocol, Quirk

PROTOCOL = Protocol(
    name="pope",
    title="POPE",
    split="COCO val2014, commit e3e3926",
    expected=Expected(
        questions=8_910,
        images=500,
        categories={"random": 2_910, "popular": 3_000, "adversarial": 3_000},
        source="AoiDragon/POPE at commit e3e3926",
    ),
    layout="question",
    suffix=SHORT,
    decoding=LOADER,
    scorer="pope",
    figure="f1",
    quirks=(
        Quirk(
            key="yes_unless_no",
            place="score",
            faithful="a first sentence without No, not or no is yes, also NO and no answer at all",
            fixed="the first of the words yes and no counts, in any case; neither is wrong",
        ),
        Quirk(
            key="no_f1_of_zero",
            place="score",
            faithful="a category without a true positive has no F1",
            fixed="its F1 is 0",
        ),
    ),
    source="official runner and evaluation script",
)
