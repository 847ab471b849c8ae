"""Answer files of the official runners: JSON lines with question_id, prompt and text."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from densekit.errors import DataError
from densekit.evaluate.questions import Question
from densekit.evaluate.scorers.textvqa_join import Key, annotation_of
from densekit.files.json_files import read_jsonl
from densekit.runs.benchmarks import Answer, Protocol

REMEDY = "give the file that an official runner wrote (question_id, prompt, text in each line)"
BY_PROMPT = "textvqa"
"""Its rows carry the image's id: the question is read out of the prompt."""


def read_llava(path: Path, protocol: Protocol, questions: Sequence[Question]) -> list[Answer]:
    """The answers of an official file, with the ids of `questions`.

    Questions of the same words on an image take their answers in the questions' order (the official
    script gives both the last one's right answers). Raises DataError for a line without id or text,
    and for a TextVQA prompt whose question is not one of the image's.
    """
    known: defaultdict[Key, list[str]] = defaultdict(list)
    for question in questions:
        known[question.image, question.text.lower()].append(question.id)
    answers = []
    for number, row in enumerate(read_jsonl(path, remedy=REMEDY), 1):
        where = f"{path}: line {number}"
        text, name = row.get("text"), row.get("question_id")
        if not isinstance(text, str) or name is None:
            raise DataError(f"{where} has no question_id or no text; {REMEDY}")
        if protocol.name == BY_PROMPT:
            prompt = row.get("prompt")
            if not isinstance(prompt, str):
                raise DataError(f"{where} has no prompt, which holds the question; {REMEDY}")
            try:
                ids = annotation_of(str(name), prompt, known)
            except DataError as error:
                raise DataError(f"{where}: {error}") from None
            name = ids.pop(0) if len(ids) > 1 else ids[0]
        answers.append(Answer(question_id=str(name), text=text))
    return answers
