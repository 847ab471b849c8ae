"""Answer files of the official runners: JSON lines with question_id, prompt and text."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from densekit.errors import DataError
from densekit.evaluate.protocols.mme import YES_OR_NO
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
    script gives both the last one's right answers). Where questions have one id (MME's two on an
    image: `x` and `x/2` of `densekit data unpack`), the prompt tells which is answered. Raises
    DataError for a line without id or text, and for a prompt whose question is not known.
    """
    known: defaultdict[Key, list[str]] = defaultdict(list)
    for question in questions:
        known[question.image, question.text.lower()].append(question.id)
    shared = _shared_ids(questions)
    answers = []
    for number, row in enumerate(read_jsonl(path, remedy=REMEDY), 1):
        where = f"{path}: line {number}"
        text, name = row.get("text"), row.get("question_id")
        if not isinstance(text, str) or name is None:
            raise DataError(f"{where} has no question_id or no text; {REMEDY}")
        prompt = row.get("prompt")
        if (protocol.name == BY_PROMPT or str(name) in shared) and not isinstance(prompt, str):
            raise DataError(f"{where} has no prompt, which holds the question; {REMEDY}")
        if str(name) in shared:
            asked = str(prompt).removesuffix(protocol.suffix).replace(YES_OR_NO, "").strip()
            if asked not in shared[str(name)]:
                raise DataError(
                    f'{where}: no question of the id {name} is "{asked[:60]}"; score answers '
                    "against the questions they were given to"
                )
            name = shared[str(name)][asked]
        elif protocol.name == BY_PROMPT:
            try:
                ids = annotation_of(str(name), str(prompt), known)
            except DataError as error:
                raise DataError(f"{where}: {error}") from None
            name = ids.pop(0) if len(ids) > 1 else ids[0]
        answers.append(Answer(question_id=str(name), text=text))
    return answers


def _shared_ids(questions: Sequence[Question]) -> dict[str, dict[str, str]]:
    """The ids that several questions were published with: each one's id here by its text."""
    texts = {question.id: question.text.strip() for question in questions}
    found: dict[str, dict[str, str]] = {}
    for name, text in texts.items():
        first, _, number = name.rpartition("/")
        if number.isdecimal() and first in texts:
            found.setdefault(first, {texts[first]: first})[text] = name
    return found
