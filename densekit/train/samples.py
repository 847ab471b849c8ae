"""From an annotation to what the model sees: tokens, labels and pixels of one sample, and of one optimiser step."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from torch.utils.data import Dataset

from densekit.batching.micro import MicroBatch, split_step
from densekit.batching.steps import Step
from densekit.batching.weights import token_weights
from densekit.datasets.annotations import Sample
from densekit.errors import DataError, DensekitError
from densekit.text.encode import IGNORE_INDEX, EncodedSample, Semantics
from densekit.text.sequence import ModelSequence, model_sequence
from densekit.train.collate import PackedRow, pack_row
from densekit.train.images import ImageProcessor, open_image


class Encoder(Protocol):
    """What turns a conversation into ids and labels."""

    pad_id: int
    max_length: int
    semantics: Semantics

    def encode(self, conversations: list[dict[str, str]], *, has_image: bool) -> EncodedSample:
        """Ids and labels of one conversation before collation."""
        ...


@dataclass(frozen=True, kw_only=True)
class SampleReader:
    """Reads one sample's text and image; both are pure functions of its index."""

    samples: Sequence[Sample]
    encoder: Encoder
    image_folder: Path
    processor: ImageProcessor
    image_tokens: int

    def encode(self, index: int) -> EncodedSample:
        """Ids and labels before collation; DataError names the sample."""
        sample = self.samples[index]
        try:
            return self.encoder.encode(sample.conversations, has_image=sample.image is not None)
        except DataError as error:
            raise DataError(f"sample {index} (id {sample.entry_id}): {error}") from None

    def sequence(self, index: int) -> tuple[ModelSequence, EncodedSample]:
        """The sequence the model sees, image slots expanded and cut to the maximum length."""
        encoded = self.encode(index)
        sequence = model_sequence(
            encoded,
            pad_id=self.encoder.pad_id,
            image_tokens=self.image_tokens,
            max_length=self.encoder.max_length,
            semantics=self.encoder.semantics,
        )
        return sequence, encoded

    def pixels(self, index: int) -> np.ndarray | None:
        """uint8 [3, S, S] of the sample's image, None for a text-only sample; DataError names the sample."""
        sample = self.samples[index]
        if sample.image is None:
            return None
        try:
            return self.processor(open_image(self.image_folder / sample.image))
        except DataError as error:
            raise DataError(f"sample {index} (id {sample.entry_id}): {error}") from None


def supervised_count(sequence: ModelSequence) -> int:
    """Labels left after the shift by one."""
    return int((sequence.labels[1:] != IGNORE_INDEX).sum())


@dataclass(kw_only=True)
class StepBatch:
    """What one rank feeds in one optimiser step, and the step's totals over all ranks."""

    index: int
    rows: list[PackedRow]
    samples: int
    tokens: int
    supervised_tokens: int
    masked_samples: int
    empty_groups: int
    notes: Counter[str] = field(default_factory=Counter)


class StepDataset(Dataset[StepBatch | DensekitError]):
    """Item i: everything this rank feeds in optimiser step i.

    An error is returned, not raised, because a worker process would turn it into a traceback.
    """

    def __init__(
        self,
        reader: SampleReader,
        steps: Sequence[Step],
        *,
        num_groups: int,
        loss_semantics: Semantics,
        rank: int,
        world_size: int,
        micro_batch_size: int,
    ) -> None:
        self.reader, self.steps, self.num_groups, self.loss_semantics = (
            reader,
            steps,
            num_groups,
            loss_semantics,
        )
        self.rank, self.world_size, self.micro_batch_size = rank, world_size, micro_batch_size

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> StepBatch | DensekitError:
        try:
            return self._read(self.steps[index])
        except DensekitError as error:
            return error

    def check_ids(self, batch: StepBatch) -> None:
        """Compare the ids that travelled with the rows with those the order asks of this rank; RuntimeError if not."""
        step = self.steps[batch.index]
        wanted = [self.reader.samples[sample].sample_id for micro in self._micro_batches(step) for sample, _ in micro]
        fed = [sample_id for row in batch.rows for sample_id in row.sample_ids]
        if fed != wanted:
            raise RuntimeError(f"step {batch.index + 1} fed samples {fed}, the order asks for {wanted}")

    def _micro_batches(self, step: Step) -> list[MicroBatch]:
        return split_step(step, world_size=self.world_size, micro_batch_size=self.micro_batch_size)[self.rank]

    def _read(self, step: Step) -> StepBatch:
        # Every rank reads the text of the whole step: weights depend on all its supervised tokens.
        placed = _placed(step)
        read = {sample: self.reader.sequence(sample) for sample, _ in placed}
        sequences = {sample: sequence for sample, (sequence, _) in read.items()}
        counts = [supervised_count(sequences[sample]) for sample, _ in placed]
        weights = token_weights(
            counts,
            [number for _, number in placed],
            num_groups=self.num_groups,
            semantics=self.loss_semantics,
        )
        weight_of = {place: float(weight) for place, weight in zip(placed, weights.per_sample, strict=True)}
        return StepBatch(
            index=step.index,
            rows=[
                pack_row(
                    [sequences[sample] for sample, _ in micro],
                    [self.reader.pixels(sample) for sample, _ in micro],
                    [weight_of[place] for place in micro],
                    sample_ids=[self.reader.samples[sample].sample_id for sample, _ in micro],
                    image_tokens=self.reader.image_tokens,
                    image_size=self.reader.processor.size,
                )
                for micro in self._micro_batches(step)
            ],
            samples=len(placed),
            tokens=sum(len(sequences[sample].input_ids) for sample, _ in placed),
            supervised_tokens=weights.supervised_tokens,
            masked_samples=sum(count == 0 for count in counts),
            empty_groups=len(weights.empty_groups),
            notes=Counter(note for sample, _ in placed for note in read[sample][1].notes),
        )


def _placed(step: Step) -> list[tuple[int, int]]:
    return [(int(sample), number) for number, group in enumerate(step.groups) for sample in group]
