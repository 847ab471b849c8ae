"""Held-out questions after training: does the model answer from the picture, and only from the
picture?
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from densekit.data.annotations import Annotations, Sample
from densekit.data.pixels import ImageProcessor, open_image
from densekit.model.answering import Decoding, generate
from densekit.model.preprocess import normalise
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.runs.progress import Progress
from densekit.runs.results import Accuracy, HeldOutScores
from densekit.text.answers import answer_text
from densekit.text.encode import SampleEncoder
from densekit.text.tokenizers.base import Tokenizer

BATCH_SIZE = 32
MAX_NEW_TOKENS = 12


def wilson_lower(correct: int, total: int, z: float = 1.959964) -> float:
    """Lower end of the 95 % Wilson score interval of a proportion (Wilson 1927)."""
    share = correct / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (centre - spread) / (1 + z * z / total)


def answers(
    model: DenseConnectorForConditionalGeneration,
    tokenizer: Tokenizer,
    encoder: SampleEncoder,
    processor: ImageProcessor,
    samples: Sequence[Sample],
    images: Sequence[Path],
    *,
    progress: Progress | None = None,
) -> list[str]:
    """Greedy answers to the first question of each sample about the image given for it."""
    table = torch.from_numpy(processor.lookup_table())
    decoding = Decoding(end_tokens=encoder.end_tokens, max_new_tokens=MAX_NEW_TOKENS)
    texts: list[str] = []
    for start in range(0, len(samples), BATCH_SIZE):
        chosen = samples[start : start + BATCH_SIZE]
        prompts = [
            torch.from_numpy(encoder.encode_prompt(sample.conversations[:1], has_image=True))
            for sample in chosen
        ]
        pixels = [
            torch.from_numpy(processor(open_image(path)))
            for path in images[start : start + BATCH_SIZE]
        ]
        generated = generate(model, prompts, normalise(torch.stack(pixels), table), decoding)
        texts += [answer_text(tokenizer, ids, decoding.end_tokens) for ids in generated.ids]
        if progress is not None:
            progress.update(len(texts))
    return texts


def run_probe(
    model: DenseConnectorForConditionalGeneration,
    tokenizer: Tokenizer,
    encoder: SampleEncoder,
    processor: ImageProcessor,
    questions: Path,
    image_folder: Path,
    *,
    seed: int,
) -> HeldOutScores:
    """Accuracy with the images in place and with the images shuffled among the questions.

    The majority class is counted per question: always giving the commonest answer of each kind of
    question.
    """
    model.eval()
    samples = list(Annotations.load(questions))
    gold = [sample.conversations[1]["value"] for sample in samples]
    own = [image_folder / str(sample.image) for sample in samples]
    shuffled = own.copy()
    random.Random(seed).shuffle(shuffled)
    scores = []
    for name, images in (("images in place", own), ("images shuffled", shuffled)):
        progress = Progress(f"held-out questions, {name}", len(samples))
        given = answers(model, tokenizer, encoder, processor, samples, images, progress=progress)
        correct = sum(
            a.rstrip(".").lower() == b.rstrip(".").lower() for a, b in zip(given, gold, strict=True)
        )
        scores.append(
            Accuracy(
                correct=correct,
                accuracy=correct / len(samples),
                wilson_lower=wilson_lower(correct, len(samples)),
            )
        )
    kinds: dict[str, Counter[str]] = {}
    for sample, answer in zip(samples, gold, strict=True):
        kinds.setdefault(sample.conversations[0]["value"], Counter())[answer] += 1
    return HeldOutScores(
        questions=len(samples),
        images_in_place=scores[0],
        images_shuffled=scores[1],
        majority_class=sum(max(counts.values()) for counts in kinds.values()) / len(samples),
    )
