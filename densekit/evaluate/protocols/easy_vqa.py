"""easy-vqa 1.0, its test part: exact match with 13 answers, by image."""

from densekit.evaluate.protocols.prompts import SHORT
from densekit.runs.benchmarks import Decoding, Expected, Protocol

PROTOCOL = Protocol(
    name="easy_vqa",
    title="easy-VQA",
    split="test of version 1.0",
    expected=Expected(
        questions=9_673,
        images=1_000,
        categories={"yes_no": 7_136, "colour": 1_280, "shape": 1_257},
        source="the package's README; its files, counted",
    ),
    layout="question",
    suffix=SHORT,
    decoding=Decoding(max_new_tokens=12, batch_size=64, dtype="fp32"),
    scorer="exact",
    figure="accuracy",
    other_protocol="not a benchmark of the paper",
    source="densekit's own",
)
