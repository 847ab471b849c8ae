"""TextVQA, validation, with the OCR tokens in the prompt."""

from densekit.evaluate.protocols.common import LOADER, TEN_ANSWERS
from densekit.evaluate.protocols.prompts import SHORT
from densekit.runs.benchmarks import Expected, Protocol, Quirk

PROTOCOL = Protocol(
    name="textvqa",
    title="TextVQA",
    split="val v0.5.1, with Rosetta's OCR tokens",
    expected=Expected(questions=5_000, source="official evaluation script"),
    layout="ocr",
    suffix=SHORT,
    decoding=LOADER,
    scorer="ten_answers",
    figure="accuracy",
    quirks=(
        TEN_ANSWERS,
        Quirk(
            key="joined_by_prompt",
            place="data",
            faithful="an answer meets its annotation by image and by the question in its prompt",
            fixed="an answer meets its annotation by id",
        ),
    ),
    source="official runner and evaluation script",
)
