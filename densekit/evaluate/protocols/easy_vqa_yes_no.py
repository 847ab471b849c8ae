"""easy-vqa's questions that are answered with yes or no: the F1 of yes, as POPE has it."""

from densekit.evaluate.protocols import easy_vqa
from densekit.runs.benchmarks import Expected

PROTOCOL = easy_vqa.PROTOCOL.model_copy(
    update={
        "name": "easy_vqa_yes_no",
        "title": "easy-VQA yes/no",
        "expected": Expected(
            questions=7_136,
            images=999,
            source="the package's README; its files, counted",
        ),
        "scorer": "yes_no",
        "figure": "f1",
    }
)
