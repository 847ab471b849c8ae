"""SEED-Bench; the paper has a script for it and prints no number."""

from densekit.evaluate.protocols.common import LOADER
from densekit.evaluate.protocols.prompts import LETTER
from densekit.runs.benchmarks import Expected, Protocol, Quirk

PROTOCOL = Protocol(
    name="seed",
    title="SEED",
    split="all; videos by their middle frame",
    expected=Expected(questions=19_242, source="official evaluation script"),
    layout="options",
    suffix=LETTER,
    decoding=LOADER,
    scorer="seed",
    figure="accuracy",
    quirks=(
        Quirk(
            key="letter_alone",
            place="score",
            faithful="an answer is right only if it is the letter and nothing else",
            fixed="letters as rules find them (scorers/letters.py)",
        ),
        Quirk(
            key="type_without_right_answer",
            place="score",
            faithful="no figure where all answers to a question type are wrong",
            fixed="its accuracy is 0",
        ),
    ),
    source="official runner and script; the layout of its question file is from memory",
)
