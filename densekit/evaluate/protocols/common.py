"""What several protocols share: decoding of the official runners, and their quirks."""

from densekit.runs.benchmarks import Decoding, Quirk

LOADER = Decoding(max_new_tokens=128)
"""The runner of GQA, VQAv2, VizWiz, TextVQA, POPE, MME and SEED."""
LONG = Decoding(max_new_tokens=1024)
"""The runners of ScienceQA, MMBench, MM-Vet, LLaVA-W and MathVista."""

PADDED_AS_STORED = Quirk(
    key="padded_as_stored",
    place="image",
    faithful="an image is padded before it becomes RGB: palette colours change, grey ones fail",
    fixed="an image becomes RGB first",
)
OPTIONS_CUT = Quirk(
    key="options_cut",
    place="prompt",
    faithful="options end at the first empty cell, and none, nan and NA are empty",
    fixed="only an empty cell ends the options",
)
"""Of MMBench, in both languages."""
TEN_ANSWERS = Quirk(
    key="ten_answers",
    place="score",
    faithful="commas and question marks vanish, at most 32 periods go, 's is cut off",
    fixed="a comma between digits vanishes, other signs separate words, 's stays",
)
"""Of normalisation; the score of an answer that 1, 2, 3, 4 people gave is 0.3, 0.6, 0.9, 1 in both.
"""
