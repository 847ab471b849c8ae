"""The held-out questions of a recipe (`probe`), asked about their own images."""

from densekit.runs.benchmarks import Decoding, Protocol

PROTOCOL = Protocol(
    name="held_out",
    title="held-out questions",
    split="images in place",
    expected=None,
    layout="tagged",
    suffix="",
    decoding=Decoding(max_new_tokens=12, batch_size=32, dtype="fp32"),
    image_aspect_ratio="square",
    scorer="closed",
    figure="accuracy",
    other_protocol="not a benchmark of the paper",
    source="densekit's own",
)
