"""MME: the perception part is reported."""

from densekit.evaluate.protocols.common import LOADER
from densekit.evaluate.protocols.prompts import SHORT
from densekit.runs.benchmarks import Expected, Protocol, Quirk

YES_OR_NO = " Please answer yes or no."
"""Behind the questions as they were published; the protocol has a sentence of its own there."""
PROTOCOL = Protocol(
    name="mme",
    title="MME-P",
    split="all, 2,114 of them perception",
    expected=Expected(questions=2_374, source="official evaluation document"),
    layout="question",
    suffix=SHORT,
    decoding=LOADER,
    scorer="mme",
    figure="perception",
    quirks=(
        Quirk(
            key="blanks",
            place="score",
            faithful="yes and no are looked for in the first four characters, blanks included",
            fixed="blanks in front are ignored",
        ),
    ),
    source="official runner; the authors' tool by its definition",
)
