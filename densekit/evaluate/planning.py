"""What an evaluation asks, made before it begins: questions, order and batches, all hashed."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from densekit.errors import DataError
from densekit.evaluate.data import BenchmarkData, image_path
from densekit.evaluate.protocols.prompts import prompt_sha256, text_asked
from densekit.evaluate.questions import Question, check_counts, refuse_twice
from densekit.evaluate.scoring import check_scorable
from densekit.files.hashing import json_sha256
from densekit.files.known_hash import known_sha256
from densekit.files.regular import open_regular
from densekit.runs.evaluations import AskedBenchmark, PlannedQuestion, plan_sha256
from densekit.spec.roots import Roots


def plan_benchmark(
    data: BenchmarkData, roots: Roots, *, limit: int | None, batch_size: int | None
) -> tuple[AskedBenchmark, list[PlannedQuestion]]:
    """The plan of one benchmark. `limit`: so many images at most; `batch_size` None: the
    protocol's, and always 1 where answers are sampled.

    The order is by the length of the text that is asked, then by id. Raises DataError for another
    version of the benchmark's data, for ids that come twice, for questions that no answer could be
    scored to, and for an image that is missing.
    """
    protocol = data.protocol
    check_counts(protocol, data.questions)
    refuse_twice(f"questions of {protocol.title}", [question.id for question in data.questions])
    chosen = [*data.questions] if limit is None else limited(data.questions, limit)
    check_scorable(protocol, chosen, whole=limit is None)
    size = batch_size or protocol.decoding.batch_size
    if protocol.decoding.do_sample:
        size = 1  # a question's generator is its own
    texts = {question.id: text_asked(protocol, question) for question in chosen}
    order = sorted(chosen, key=lambda question: (len(texts[question.id]), question.id))
    places = {
        image: image_path(data, image, roots)
        for image in dict.fromkeys(question.image for question in order)
        if image is not None
    }
    digests = {image: _sha256(roots.resolve(place), roots.cache) for image, place in places.items()}
    plan = [
        PlannedQuestion(
            batch=number // size,
            question_id=question.id,
            asked=texts[question.id],
            image=places.get(question.image or ""),
            image_sha256=digests.get(question.image or ""),
            question=asdict(question),
        )
        for number, question in enumerate(order)
    ]
    asked = AskedBenchmark(
        protocol=protocol,
        prompt_sha256=prompt_sha256(protocol),
        data_sha256=json_sha256([asdict(question) for question in data.questions]),
        plan_sha256=plan_sha256(plan),
        questions=len(plan),
        available=len(data.questions),
        batch_size=size,
    )
    return asked, plan


def limited(questions: Sequence[Question], images: int) -> list[Question]:
    """The questions about so many images, chosen by the hash of their ids: files are sorted, so
    that the first ones are no sample. A question without an image is chosen by its own id.
    """
    units = {question.image or question.id for question in questions}
    chosen = set(sorted(units, key=lambda unit: hashlib.sha256(unit.encode()).digest())[:images])
    return [question for question in questions if (question.image or question.id) in chosen]


def _sha256(path: Path, cache: Path) -> str:
    try:
        with open_regular(path) as file:
            return known_sha256(path, file, cache)
    except OSError as error:
        raise DataError(f"image {path} cannot be read: {error.strerror}; restore it") from None
