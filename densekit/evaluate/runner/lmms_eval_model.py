"""A densekit model inside lmms-eval: what its entry point `lmms_eval.models` finds.

Only lmms-eval imports this file. Text and picture come from lmms-eval's own rows; weights,
tokenizer, template and image processor are those of the evaluation that is checked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from transformers.utils import logging

from densekit.errors import DataError
from densekit.evaluate.cross_check.tasks import PREFIX
from densekit.evaluate.protocols.prompts import human_turn
from densekit.evaluate.runner.batches import Preparer
from densekit.evaluate.runner.loading import load_evaluated
from densekit.model.answering import Decoding, generate
from densekit.model.preprocess import normalise
from densekit.runs.evaluations import EvaluationFolder
from densekit.text.answers import answer_text

NAME = "densekit"


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How one task is asked."""

    preparer: Preparer
    decoding: Decoding


def manifest() -> ModelManifest:
    """What the entry point returns."""
    return ModelManifest(model_id=NAME, simple_class_path=f"{__name__}.DensekitModel")


class DensekitModel(lmms):
    """Answers greedily, one question at a time."""

    def __init__(self, evaluation: str, **given: Any) -> None:
        """`evaluation`: the folder whose model is asked; `given`: what lmms-eval passes to every
        model (batch_size, device).

        Raises ValueError for a batch size other than 1, DataError as `load_evaluated`.
        """
        super().__init__()
        if str(given.get("batch_size", 1)) != "1":
            raise ValueError(f"batch_size {given['batch_size']}: one question is asked at a time")
        logging.disable_progress_bar()
        folder = EvaluationFolder(Path(evaluation).resolve())
        self.evaluation = folder.evaluation
        if self.evaluation.device == "cpu":
            torch.set_num_threads(1)  # as the evaluator: else sums are split otherwise
        device = torch.device(self.evaluation.device)
        self.roots = folder.execution.roots
        self.evaluated = load_evaluated(folder.source, self.evaluation, device)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The answer to each request, in their order. Raises DataError for a task that asks for
        another number of tokens than its protocol.
        """
        answers = []
        for request in requests:
            text, settings, to_images, doc_id, task, split = request.args
            asked = self._asking(task)
            if settings["max_new_tokens"] != asked.decoding.max_new_tokens:
                raise DataError(
                    f"{task}: max_new_tokens is {settings['max_new_tokens']}, and its protocol has "
                    f"{asked.decoding.max_new_tokens}; run `densekit cross-check` again"
                )
            images = [image for image in to_images(self.task_dict[task][split][doc_id]) if image]
            answers.append(self._answer(asked, text, images))
        return answers

    @cache  # noqa: B019 - one model for the life of the process
    def _asking(self, task: str) -> Asking:
        protocol = self.evaluation.asked(task.removeprefix(PREFIX)).protocol
        return Asking(
            preparer=self.evaluated.preparer(protocol, self.roots),
            decoding=self.evaluated.decoding(protocol),
        )

    def _answer(self, asked: Asking, text: str, images: Sequence[Any]) -> str:
        turn = {"from": "human", "value": human_turn(text, has_image=bool(images))}
        ids = self.evaluated.encoder.encode_prompt([turn], has_image=bool(images))
        pixels = None
        if images:
            arrays = [torch.from_numpy(asked.preparer.pixels_of(image)) for image in images]
            pixels = normalise(torch.cat(arrays), asked.preparer.table)
        prompt = torch.from_numpy(ids)
        sizes = [image.size for image in images]
        generated = generate(
            self.evaluated.model, [prompt], pixels, asked.decoding, image_sizes=sizes
        )
        return answer_text(self.evaluated.tokenizer, generated.ids[0], asked.decoding.end_tokens)

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Not asked for: every task is generated."""
        raise NotImplementedError("the cross-check's tasks are generated, none is ranked")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not asked for: every task is one question."""
        raise NotImplementedError("the cross-check's tasks have one round")
