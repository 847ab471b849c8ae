"""MMBench, the Chinese development questions."""

from densekit.evaluate.protocols.common import LONG, PADDED_AS_STORED
from densekit.evaluate.protocols.prompts import LETTER_CN
from densekit.runs.benchmarks import Protocol, Quirk

PROTOCOL = Protocol(
    name="mmb_cn",
    title="MMB-CN",
    split="mmbench_dev_cn_20231003",
    expected=None,
    layout="options",
    suffix=LETTER_CN,
    decoding=LONG,
    scorer="mmbench",
    figure="circular_accuracy",
    quirks=(
        PADDED_AS_STORED,
        Quirk(
            key="options_cut",
            place="prompt",
            faithful="options end at the first empty cell, and none, nan and NA are empty",
            fixed="only an empty cell ends the options",
        ),
    ),
    source="official runner; the service and its judge are gone, letters come from rules",
)
