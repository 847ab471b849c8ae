"""The answers of an evaluation, a line each in the plan's order, appended batch by batch.

`chain` of a line = SHA-256 of the chain before it and of everything else that the line says; the
first one follows the evaluation's key of the benchmark. So one hash stands for all answers, and for
what they depend on.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from densekit.errors import DataError
from densekit.files.hashing import canonical_json, json_sha256
from densekit.files.json_files import open_file, parse_json
from densekit.runs.evaluations import PlannedQuestion

REMEDY = "put back a copy of the file, or remove it: its questions are then asked again"
FIELDS_OF_CHAIN = ("batch", "question_id", "text", "ids", "ended", "prompt_sha256", "key")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerLine:
    """What a model said to one question."""

    batch: int
    question_id: str
    text: str
    """Special tokens removed, both ends stripped."""
    ids: list[int]
    """The new tokens, without the one that ended them."""
    ended: Literal["end", "length"]
    """By an end token, or at the most tokens that the protocol admits."""
    prompt_sha256: str
    """Of the ids that were asked."""
    key: str
    """Of the answer: over everything that decides it."""
    chain: str = ""


LINE = TypeAdapter(AnswerLine)


def answer_key(benchmark_key: str, planned: PlannedQuestion, prompt_sha256: str) -> str:
    """What decides an answer: the evaluation's key of the benchmark (weights, tokenizer, template,
    processor, dtype, kernel, decoding, versions, plan), the prompt's ids and the image's bytes.
    """
    return json_sha256([benchmark_key, planned.question_id, prompt_sha256, planned.image_sha256])


def chain_next(previous: str, line: AnswerLine) -> str:
    """The chain hash of a line, given that of the line before (hex)."""
    linked = canonical_json({name: getattr(line, name) for name in FIELDS_OF_CHAIN})
    return hashlib.sha256(previous.encode() + b"\n" + linked).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ReadAnswers:
    """The answers of a file, up to its last whole batch."""

    lines: list[AnswerLine]
    size: int
    """Bytes of these lines."""
    cut: bool
    """Whether something follows: a batch that was being written."""


def read_answers(path: Path, key: str, plan: Sequence[PlannedQuestion]) -> ReadAnswers:
    """The answers that are there; none where there is no file.

    Raises DataError, naming the line, for answers that are not to this plan, were edited, or do not
    depend on what `key` says.
    """
    if not path.exists():
        return ReadAnswers(lines=[], size=0, cut=False)
    lines: list[AnswerLine] = []
    sizes: list[int] = []
    chain = key
    with open_file(path, REMEDY) as file:
        for number, data in enumerate(file, 1):
            if number > len(plan):
                raise DataError(
                    f"{path} has more lines than questions were planned ({len(plan)}); {REMEDY}"
                )
            if not data.endswith(b"\n"):
                break
            line = _parse(path, number, data)
            planned = plan[number - 1]
            chain = chain_next(chain, line)
            if (line.batch, line.question_id) != (planned.batch, planned.question_id):
                raise DataError(
                    f"{path}: line {number} answers question {line.question_id}, and the plan asks "
                    f"{planned.question_id} there; {REMEDY}"
                )
            if line.chain != chain or line.key != answer_key(key, planned, line.prompt_sha256):
                raise DataError(
                    f"{path}: line {number} does not follow from the lines before it and from what "
                    f"this evaluation asks: it was edited, or is another evaluation's; {REMEDY}"
                )
            lines.append(line)
            sizes.append(len(data))
    whole = len(lines)
    while whole and whole < len(plan) and plan[whole].batch == plan[whole - 1].batch:
        whole -= 1
    size = sum(sizes[:whole])
    return ReadAnswers(lines=lines[:whole], size=size, cut=path.stat().st_size > size)


class AnswerFile:
    """A file of answers, open for appending; only rank 0 of an evaluator has one."""

    def __init__(self, path: Path, read: ReadAnswers, key: str) -> None:
        """Continue after the answers that were read; what follows them is cut off."""
        path.parent.mkdir(exist_ok=True)
        self._chain = read.lines[-1].chain if read.lines else key
        self._file = path.open("ab")
        self._file.truncate(read.size)

    def append(self, batch: Sequence[AnswerLine]) -> None:
        """Write one batch, at once."""
        data = b""
        for unlinked in batch:
            self._chain = chain_next(self._chain, unlinked)
            line = replace(unlinked, chain=self._chain)
            data += json.dumps(asdict(line), ensure_ascii=False).encode() + b"\n"
        self._write(data)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    def __enter__(self) -> "AnswerFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def _parse(path: Path, number: int, data: bytes) -> AnswerLine:
    try:
        return LINE.validate_python(parse_json(data))
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except ValueError as error:
        problem = str(error)
    raise DataError(f"{path}: line {number}: {problem}; {REMEDY}")
