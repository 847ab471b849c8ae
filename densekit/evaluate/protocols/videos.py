"""What the video benchmarks share: FreeVA's frames and the official video runners' decoding.

Their judge is retired, and its snapshots score the same answers differently: answers are written,
and no score.
"""

from densekit.evaluate.video_files import FILES
from densekit.runs.benchmarks import Decoding, Protocol
from densekit.spec.video import VideoSettings

JUDGED = "the paper's judge is gpt-3.5-turbo-0125 (retired)"
QUESTIONS = {
    "video_do": "video_ci",
    "video_cu": "video_ci",
}
"""Benchmarks whose questions are another one's: its answers are theirs."""


def video_protocol(name: str, title: str, *, split: str) -> Protocol:
    """A benchmark of Table 5."""
    return Protocol(
        name=name,
        title=title,
        split=split,
        expected=None,
        layout="question",
        suffix="",
        decoding=Decoding(max_new_tokens=512),
        video=VideoSettings(),
        scorer=None,
        figure="",
        other_protocol=JUDGED,
        source=(
            f"official video scripts (8 frames, pooled); questions of Video-ChatGPT's {FILES[name]}"
        ),
    )
