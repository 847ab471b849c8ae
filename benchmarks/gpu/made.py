"""A recipe's model with random weights, and samples of the lengths that its data has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import torch
from accelerate import Accelerator
from memory_trace import language_config, tower_config

from densekit.batching.steps import Step
from densekit.data.pixels import ReadImage
from densekit.model.config import DenseConnectorConfig
from densekit.model.dtypes import TORCH_DTYPES
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.planner.workload import Workload
from densekit.recipes.load import load_recipe
from densekit.spec.connector import Connector
from densekit.spec.execution import Execution
from densekit.spec.math import Math
from densekit.spec.trained_model import TrainedModel
from densekit.spec.types import IGNORE_INDEX, IMAGE_TOKEN_ID
from densekit.spec.vision import ImageLayout
from densekit.text.encode import EncodedSample
from densekit.text.sequence import ModelSequence
from densekit.train.assembly import build_trainer
from densekit.train.lora import add_lora
from densekit.train.trainer import Trainer
from densekit.train.utilization import Utilization

RECIPES = {
    "7b": {
        "stage1": "vicuna7b_clip_stage1",
        "lora": "vicuna7b_clip_none_stage2_lora",
        "full": "vicuna7b_clip_stage2",
    },
    "tiny": {"stage1": "tiny_stage1", "lora": "tiny_stage2_lora", "full": "tiny_stage2"},
}
"""By size and what is trained."""


@dataclass(frozen=True)
class MadeProcessor:
    """Pixels need no processor here."""

    size: int

    def lookup_table(self) -> np.ndarray:
        """float32 [256, 3]: about normalised."""
        return np.repeat(np.linspace(-1.8, 2.2, 256, dtype=np.float32)[:, None], 3, axis=1)


class EveryoneHasAnImage:
    """Words of each sample, however many there are."""

    def __getitem__(self, samples: list[int]) -> np.ndarray:
        return np.ones(len(samples), dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class MadeReader:
    """Samples of random tokens behind an image, as long as the recipe's are on average: each text
    between half and one and a half of it.
    """

    workload: Workload
    counts: None = None
    """Nobody counted before."""

    @property
    def image_tokens(self) -> int:
        return self.workload.model.shape.image_tokens

    @property
    def layout(self) -> ImageLayout:
        return ImageLayout(patches=self.image_tokens, connector=Connector(kind="none"))

    @property
    def processor(self) -> MadeProcessor:
        return MadeProcessor(self.workload.model.shape.tower.image_size)

    @property
    def index(self) -> SimpleNamespace:
        return SimpleNamespace(
            sample_id=lambda number: f"{number}:{number:016x}",
            modality_lengths=EveryoneHasAnImage(),
        )

    def sequence(self, number: int) -> tuple[ModelSequence, EncodedSample]:
        """Tokens and labels of a sample, drawn from its number."""
        draw = np.random.default_rng(number)
        sample, image = self.workload.sample, self.image_tokens
        text = max(4, round((sample.tokens - image * sample.images) * draw.uniform(0.5, 1.5)))
        share = sample.label_positions / max(1.0, sample.tokens - image * sample.images)
        labelled = max(1, min(text - 1, round(text * share)))
        words = draw.integers(3, self.workload.model.shape.language.vocab, text)
        ids = np.concatenate([np.full(image, IMAGE_TOKEN_ID), words]).astype(np.int64)
        labels = np.full(len(ids), IGNORE_INDEX, dtype=np.int64)
        labels[-labelled:] = ids[-labelled:]
        encoded = EncodedSample(input_ids=ids, labels=labels, notes=())
        return ModelSequence(input_ids=ids, labels=labels), encoded

    def image(self, number: int) -> ReadImage:
        """Noise."""
        size = self.processor.size
        pixels = np.random.default_rng(number).integers(0, 256, (3, size, size), dtype=np.uint8)
        return ReadImage(pixels=pixels, size=(size, size), digest=f"{number:016x}")


def workload_of(
    size: str, what: str, layers: int | None = None, overrides: Sequence[str] = ()
) -> tuple[Math, Workload]:
    """The recipe of a size, with fewer layers of the language model where asked."""
    recipe = load_recipe(RECIPES[size][what], overrides)
    workload = Workload.of(recipe, None)
    if layers is not None:
        shape = workload.model.shape
        shape = replace(shape, language=replace(shape.language, layers=layers))
        workload = replace(workload, model=replace(workload.model, shape=shape))
    return recipe.math(), workload


def make_model(
    math: Math, trained: TrainedModel, execution: Execution, on: str
) -> DenseConnectorForConditionalGeneration:
    """Random weights, drawn on a device, in the dtypes of a run without sharding."""
    config = DenseConnectorConfig(
        text_config=language_config(trained.shape.language),
        vision_config=tower_config(trained.shape.tower),
        connector=math.connector.model_dump(mode="json"),
    )
    masters = math.trains == "full"
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if masters else TORCH_DTYPES[execution.dtype])
    try:
        with torch.device(on):
            model = DenseConnectorForConditionalGeneration(config)
            if math.lora:
                add_lora(model, math.lora)
    finally:
        torch.set_default_dtype(before)
    model.vision_tower.requires_grad_(False)
    model.projector.float().requires_grad_(True)
    if not math.lora:
        model.language_model.requires_grad_(math.stage == 2)
    return model.train()


def make_trainer(
    math: Math,
    workload: Workload,
    execution: Execution,
    accelerator: Accelerator,
    *,
    steps: int,
    samples: int,
    on: str,
    utilization: Utilization | None = None,
) -> Trainer:
    """The trainer of a run over made samples; its weights are drawn on the device `on`."""
    order: Sequence[Step] = [
        Step(index=step, groups=[np.arange(samples) + step * samples], num_groups=1)
        for step in range(steps)
    ]
    model = make_model(math, workload.model, execution, on)
    reader = MadeReader(workload=workload)
    return build_trainer(
        model,
        reader,  # type: ignore[arg-type]
        order,
        math,
        execution,
        accelerator,
        utilization=utilization,
    )
