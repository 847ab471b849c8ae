"""MMBench, the English development questions: every rotation of the options is asked."""

from densekit.evaluate.protocols.common import LONG, OPTIONS_CUT, PADDED_AS_STORED
from densekit.evaluate.protocols.prompts import LETTER
from densekit.runs.benchmarks import Expected, Protocol

PROTOCOL = Protocol(
    name="mmb",
    title="MMB",
    split="mmbench_dev_20230712",
    expected=Expected(questions=1_164, source="mmbench_dev_20230712.tsv"),
    layout="options",
    suffix=LETTER,
    decoding=LONG,
    scorer="mmbench",
    figure="circular_accuracy",
    quirks=(PADDED_AS_STORED, OPTIONS_CUT),
    source="official runner; the service and its judge are gone, letters come from rules",
)
