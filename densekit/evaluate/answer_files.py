"""Answer files of the official runners: JSON lines with question_id, prompt and text."""

from collections.abc import Sequence
from pathlib import Path

from densekit.errors import DataError
from densekit.evaluate.questions import Question
from densekit.evaluate.scorers.textvqa_join import asked_question
from densekit.files.json_files import read_jsonl
from densekit.runs.benchmarks import Answer, Protocol

REMEDY = "give the file that an official runner wrote (question_id, prompt, text in each line)"
BY_PROMPT = "textvqa"
"""Its rows carry the image's id: the question is read out of the prompt."""


def read_llava(path: Path, protocol: Protocol, questions: Sequence[Question]) -> list[Answer]:
    """The answers of an official file, with the ids of `questions`.

    Raises DataError for a line without id, text or prompt, and for a TextVQA prompt whose question
    is not one of the image's.
    """
    known = {(question.image, question.text.lower()): question.id for question in questions}
    answers = []
    for number, row in enumerate(read_jsonl(path, remedy=REMEDY), 1):
        where = f"{path}: line {number}"
        text, prompt, name = row.get("text"), row.get("prompt", ""), row.get("question_id")
        if not isinstance(text, str) or not isinstance(prompt, str) or name is None:
            raise DataError(f"{where} has no question_id or no text; {REMEDY}")
        if protocol.name == BY_PROMPT:
            key = (str(name), asked_question(prompt))
            if key not in known:
                raise DataError(f'{where}: image {name} has no question "{key[1][:60]}"')
            name = known[key]
        answers.append(Answer(question_id=str(name), text=text))
    return answers
