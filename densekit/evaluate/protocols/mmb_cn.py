"""MMBench, the Chinese development questions."""

from densekit.evaluate.protocols.common import LONG, OPTIONS_CUT, PADDED_AS_STORED
from densekit.evaluate.protocols.prompts import LETTER_CN
from densekit.runs.benchmarks import Protocol

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
    quirks=(PADDED_AS_STORED, OPTIONS_CUT),
    source="official runner; the service and its judge are gone, letters come from rules",
)
