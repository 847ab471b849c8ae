"""Asks a model one batch, as the protocol decodes."""

import hashlib
from dataclasses import dataclass

import torch

from densekit.evaluate.runner.batches import Batch
from densekit.model.answering import Decoding, generate
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.runs.answers import AnswerLine, answer_key
from densekit.text.answers import answer_text
from densekit.text.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Asker:
    """A model with what decides how it answers."""

    model: DenseConnectorForConditionalGeneration
    tokenizer: Tokenizer
    decoding: Decoding
    seed: int
    key: str
    """The evaluation's, of this benchmark."""

    def __call__(self, batch: Batch) -> list[AnswerLine]:
        """The answers of a batch, in its order."""
        ends = self.decoding.end_tokens
        if self.decoding.temperature > 0:
            (only,) = batch.planned
            torch.manual_seed(sampling_seed(self.seed, only.question_id))
        generated = generate(
            self.model,
            batch.prompts,
            batch.pixels,
            self.decoding,
            image_sizes=batch.image_sizes,
            frames=batch.frames,
        )
        return [
            AnswerLine(
                batch=planned.batch,
                question_id=planned.question_id,
                text=answer_text(self.tokenizer, ids, ends),
                ids=ids,
                ended="end" if ids and ids[-1] in ends else "length",
                prompt_sha256=prompt_sha256,
                key=answer_key(self.key, planned, prompt_sha256),
            )
            for planned, prompt_sha256, ids in zip(
                batch.planned, batch.prompt_sha256, generated.ids, strict=True
            )
        ]


def sampling_seed(seed: int, question_id: str) -> int:
    """What torch's generators are seeded with before a question whose answer is sampled: a function
    of the question, whichever process asks it and after whatever else.
    """
    digest = hashlib.sha256(f"{seed}/{question_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
