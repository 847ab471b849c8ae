"""Ranks and micro-batches sum: the same gradient for any split, and equal to the reference loss
written out.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from densekit.batching.steps import Step
from densekit.errors import DataError
from densekit.model.preprocess import pixel_values
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.model.weights import read_weights
from densekit.parity.case import Recording, make_trainer, single_step
from densekit.spec.types import IGNORE_INDEX
from densekit.train.step_dataset import SampleReader, StepBatch, StepDataset

pytestmark = pytest.mark.ranks
Built = tuple[DenseConnectorForConditionalGeneration, SampleReader]

# Mixed modality: text-only samples, among them a group of nothing else.
GROUPS = ([0, 2, 4], [5, 8, 11], [1, 3, 6], [14, 7, 9])


@pytest.fixture(scope="module")
def recording(golden: Path) -> Recording:
    return Recording.read(golden, golden / "clip_dci" / "stage2.json")


@pytest.fixture(scope="module")
def start(golden: Path) -> dict[str, torch.Tensor]:
    weights = read_weights(golden / "clip_dci" / "projector_after_stage1.safetensors")
    return {f"connector.{name}": value for name, value in weights.items()}


@pytest.fixture(scope="module")
def built(recording: Recording, start: dict) -> Built:
    """The model at step 0 and the training data; weights are never changed."""
    model = recording.model(start)
    return model, recording.reader(recording.root / "data" / "stage2_train.json", model)


def _gradient(
    recording: Recording,
    built: Built,
    *,
    semantics: str = "faithful",
    world_size: int = 1,
    micro_batch_size: int,
    tokens: int | None = None,
    groups: tuple[list[int], ...] = GROUPS,
) -> tuple[torch.Tensor, float]:
    model, reader = built
    model.zero_grad(set_to_none=True)
    steps = [Step(index=0, groups=[np.array(group) for group in groups], num_groups=len(groups))]
    loss = 0.0
    for rank in range(world_size):
        trainer = make_trainer(model, reader, steps, recording.math)
        trainer.dataset = StepDataset(
            reader,
            steps,
            loss_semantics=semantics,
            rank=rank,
            world_size=world_size,
            micro_batch_size=micro_batch_size,
            tokens_per_micro_batch=tokens,
        )
        loss += trainer.accumulate(next(trainer.batches())).item()
    return (
        torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]),
        loss,
    )


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("semantics", ["faithful", "fixed"])
def test_any_split_gives_the_same_gradient(
    recording: Recording, built: Built, semantics: str
) -> None:
    reference, reference_loss = _gradient(
        recording, built, semantics=semantics, micro_batch_size=12
    )
    splits = ((1, 1, None), (1, 5, None), (3, 2, None), (5, 1, None), (1, 12, 1000), (2, 3, 700))
    for world_size, micro_batch_size, tokens in splits:
        gradient, loss = _gradient(
            recording,
            built,
            semantics=semantics,
            world_size=world_size,
            micro_batch_size=micro_batch_size,
            tokens=tokens,
        )
        assert _difference(gradient, reference) <= 1e-6, (world_size, micro_batch_size, tokens)
        assert loss == pytest.approx(reference_loss, abs=1e-5)


def test_the_two_semantics_differ_as_described(recording: Recording, built: Built) -> None:
    """faithful = mean over groups of token means; fixed = mean over all tokens: from losses of
    single samples.
    """
    reader, losses = built[1], {}
    for semantics in ("faithful", "fixed"):
        _, losses[semantics] = _gradient(recording, built, semantics=semantics, micro_batch_size=4)
    sums, counts = {}, {}
    for sample in sorted({sample for group in GROUPS for sample in group}):
        # A group of one sample: its loss is the mean over that sample's tokens.
        _, mean = _gradient(recording, built, micro_batch_size=1, groups=([sample],))
        counts[sample] = int((reader.sequence(sample)[0].labels[1:] != IGNORE_INDEX).sum())
        sums[sample] = mean * counts[sample]
    group_means = [sum(sums[s] for s in group) / sum(counts[s] for s in group) for group in GROUPS]
    assert losses["faithful"] == pytest.approx(np.mean(group_means), abs=1e-5)
    assert losses["fixed"] == pytest.approx(sum(sums.values()) / sum(counts.values()), abs=1e-5)
    assert abs(losses["faithful"] - losses["fixed"]) > 1e-4


def test_idle_ranks_and_text_only_micro_batches_still_touch_every_parameter(
    recording: Recording, start: dict
) -> None:
    model = recording.model(start)
    reader = recording.reader(recording.root / "data" / "stage2_train.json", model)
    text_only = [i for i in range(len(reader.samples)) if reader.samples[i].image is None][:1]
    steps = [Step(index=0, groups=[np.array(text_only)], num_groups=1)]
    for rank, expect_signal in ((0, True), (1, False)):
        trainer = make_trainer(model, reader, steps, recording.math)
        trainer.dataset = StepDataset(
            reader, steps, loss_semantics="faithful", rank=rank, world_size=2, micro_batch_size=1
        )
        model.zero_grad(set_to_none=True)
        trainer.accumulate(next(trainer.batches()))
        missing = [
            name for name, p in model.named_parameters() if p.requires_grad and p.grad is None
        ]
        assert not missing
        assert not any(p.grad.any() for p in model.projector.parameters())
        assert bool(model.language_model.lm_head.weight.grad.any()) is expect_signal


def test_swapping_samples_in_the_loader_stops_the_run(recording: Recording, start: dict) -> None:
    model = recording.model(start)
    reader = recording.reader(recording.root / "data" / "stage2_train.json", model)
    trainer = make_trainer(model, reader, single_step(range(2)), recording.math)
    trainer.dataset = Swapped(
        reader,
        trainer.dataset.steps,
        loss_semantics="faithful",
        rank=0,
        world_size=1,
        micro_batch_size=2,
    )
    with pytest.raises(RuntimeError, match="the order asks for"):
        trainer.check_feed(next(trainer.batches()))


class Swapped(StepDataset):
    """Reads the step's samples in the wrong order: text, image and, with them, the id."""

    def _read(self, step: Step) -> StepBatch:
        return super()._read(replace(step, groups=[group[::-1] for group in step.groups]))


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(
    recording: Recording, start: dict
) -> None:
    model = recording.model(start)
    reader = recording.reader(recording.root / "data" / "stage2_train.json", model)
    with torch.no_grad():
        model.language_model.lm_head.weight.fill_(float("nan"))
    before = [weight.detach().clone() for weight in model.projector.parameters()]
    trainer = make_trainer(model, reader, single_step(range(1)), recording.math)
    with pytest.raises(DataError, match="loss is nan at step 1"):
        trainer.step(next(trainer.batches()))
    assert before and all(map(torch.equal, before, model.projector.parameters()))


def test_packed_cross_entropy_is_the_padded_one(recording: Recording, start: dict) -> None:
    """The packed loss against stock attention on one sample at a time."""
    model = recording.model(start).eval()
    reader = recording.reader(recording.root / "data" / "stage2_batch.json", model)
    trainer = make_trainer(model, reader, single_step(range(1)), recording.math)
    (micro_batch,) = next(trainer.batches()).micro_batches
    images = pixel_values(micro_batch.pixels, trainer.lookup_table)
    with torch.no_grad(), model.stock_attention("eager"):
        embeddings = model.trainable_part.embed(micro_batch, model.encode_images(images))
        logits = model.language_model(inputs_embeds=embeddings[None]).logits[0]
    labels = torch.from_numpy(reader.sequence(0)[0].labels)
    expected = F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE_INDEX)
    with torch.no_grad():
        assert model(micro_batch, images).loss.item() == pytest.approx(expected.item(), abs=1e-5)
