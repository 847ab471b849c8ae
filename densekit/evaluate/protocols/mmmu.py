"""MMMU, validation: the one benchmark whose answers are sampled."""

from densekit.evaluate.protocols.common import PADDED_AS_STORED
from densekit.evaluate.protocols.prompts import LETTER
from densekit.runs.benchmarks import Decoding, Expected, Protocol, Quirk

PROTOCOL = Protocol(
    name="mmmu",
    title="MMMU",
    split="validation",
    expected=Expected(
        questions=900,
        source="answer_dict_val.json of the official runner: 847 with options, 53 open",
    ),
    layout="lettered",
    suffix=LETTER,
    decoding=Decoding(do_sample=True, temperature=1, num_beams=5, max_new_tokens=128),
    scorer="mmmu",
    figure="accuracy",
    quirks=(
        PADDED_AS_STORED,
        Quirk(
            key="sampled",
            place="decoding",
            faithful="answers are sampled: temperature 1, 5 beams, seed 42",
            fixed="answers are greedy",
        ),
        Quirk(
            key="first_image",
            place="image",
            faithful="only the first image is shown; <image 2> stays as text",
            fixed="a question about several images is not asked",
        ),
        Quirk(
            key="drawn_letters",
            place="score",
            faithful="a letter is drawn (seed 42) where a response names none",
            fixed="such a response is wrong",
        ),
    ),
    source="runner bundled with the official code",
)
