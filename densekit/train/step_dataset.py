"""From an annotation to what the model sees: tokens, labels and pixels of one sample, and of one
optimizer step.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from torch.utils.data import Dataset

from densekit.batching.split import split_step
from densekit.batching.steps import Step
from densekit.batching.weights import token_weights
from densekit.data.annotations import Annotations
from densekit.data.image_tokens import ImageTokens
from densekit.data.index import SampleIndex
from densekit.data.missing import Chosen
from densekit.data.pixels import ImageProcessor, ReadImage, read_image
from densekit.data.token_counts import Counted, TokenCounts
from densekit.errors import DataError, DensekitError
from densekit.model.micro_batch import MicroBatch
from densekit.spec.types import Semantics
from densekit.spec.vision import ImageLayout
from densekit.text.encode import EncodedSample
from densekit.text.sequence import ModelSequence, model_sequence
from densekit.train.collate import WeightedSample, pack


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

    samples: Annotations
    index: SampleIndex
    """Of these samples: their ids were hashed once, when it was made."""
    encoder: Encoder
    image_folder: Path
    processor: ImageProcessor
    layout: ImageLayout
    """How an image becomes views and tokens."""
    semantics: Semantics = "faithful"
    """What becomes of an image of more than 8 bits a channel; the recipe's L1."""
    chosen: Chosen | None = None
    """Where entries were dropped or replaced: which."""
    counts: TokenCounts | None = None
    """Tokens and labels of samples that were tokenised before, whoever did."""

    def encode(self, index: int) -> EncodedSample:
        """Ids and labels before collation; DataError names the sample, also one that is another
        than the index says.
        """
        sample = self.samples[index]
        if sample.sample_id != self.index.sample_id(index):
            raise DataError(
                f"{self.samples.path}: entry {sample.index} is not what it was when the file was "
                "indexed: the file changed; put it back, then start the run again"
            )
        try:
            return self.encoder.encode(sample.conversations, has_image=sample.image is not None)
        except DataError as error:
            raise DataError(f"sample {sample.index} (id {sample.entry_id}): {error}") from None

    def sequence(self, index: int) -> tuple[ModelSequence, EncodedSample]:
        """The sequence the model sees, image slots expanded and cut to the maximum length."""
        encoded = self.encode(index)
        sequence = model_sequence(
            encoded,
            pad_id=self.encoder.pad_id,
            image_tokens=self.image_tokens(index),
            max_length=self.encoder.max_length,
            semantics=self.encoder.semantics,
        )
        return sequence, encoded

    def image_tokens(self, index: int) -> int:
        """Feature tokens of the sample's image; DataError names the sample."""
        sample = self.samples[index]
        try:
            return ImageTokens(layout=self.layout, folder=self.image_folder).of(sample.image)
        except DataError as error:
            raise DataError(f"sample {sample.index} (id {sample.entry_id}): {error}") from None

    def image(self, index: int) -> ReadImage | None:
        """The sample's image, None for a text-only sample; DataError names the sample."""
        sample = self.samples[index]
        if sample.image is None:
            return None
        try:
            image, digest = read_image(self.image_folder / sample.image, self.semantics)
            return ReadImage(pixels=self.processor(image), size=image.size, digest=digest)
        except DataError as error:
            raise DataError(f"sample {sample.index} (id {sample.entry_id}): {error}") from None


@dataclass(kw_only=True)
class StepBatch:
    """What one rank feeds in one optimizer step, and the step's totals over all ranks."""

    index: int
    micro_batches: list[MicroBatch]
    samples: int
    tokens: int
    squares: int
    """Sum of the squared lengths: what attention costs."""
    images: int
    label_positions: int
    masked_samples: int
    empty_groups: int
    notes: Counter[str] = field(default_factory=Counter)

    def pin_memory(self) -> "StepBatch":
        """The same in page-locked host RAM: the data loader asks for it."""
        pinned = [micro_batch.pin_memory() for micro_batch in self.micro_batches]
        return replace(self, micro_batches=pinned)


class StepDataset(Dataset[StepBatch | DensekitError]):
    """Item i: everything this rank feeds in optimizer step i.

    An error is returned, not raised, because a worker process would turn it into a traceback.
    """

    def __init__(
        self,
        reader: SampleReader,
        steps: Sequence[Step],
        *,
        loss_semantics: Semantics,
        rank: int,
        world_size: int,
        micro_batch_size: int,
        tokens_per_micro_batch: int | None = None,
    ) -> None:
        self.reader, self.steps, self.loss_semantics = reader, steps, loss_semantics
        self.rank, self.world_size, self.micro_batch_size = rank, world_size, micro_batch_size
        self.tokens_per_micro_batch = tokens_per_micro_batch

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> StepBatch | DensekitError:
        try:
            return self._read(self.steps[index])
        except DensekitError as error:
            return error

    def sample_ids(self, index: int) -> list[str]:
        """The ids that step `index` has to feed, in official order, over all ranks."""
        return [self.reader.index.sample_id(sample) for sample, _ in self.steps[index].samples]

    def _count(self, sample: int, read: dict[int, ModelSequence]) -> Counted:
        """Tokens, labels and notes of a sample: those that are kept, else its sequence goes into
        `read`.
        """
        counts = self.reader.counts
        if counts is None:
            return self._tokenised(sample, read)
        place = self.reader.index.place(sample)
        known = counts.get(place)
        if known is None:
            known = self._tokenised(sample, read)
            counts.put(place, known)
        return known

    def _check_count(self, sample: int, counted: Counted, read: dict[int, ModelSequence]) -> None:
        """Put a sample's sequence into `read`; DataError where it is not what was counted."""
        if sample in read:
            return
        found = self._tokenised(sample, read)
        if found != counted:
            assert self.reader.counts is not None
            raise DataError(
                f"sample {self.reader.index.place(sample)}: {counted.tokens} tokens and "
                f"{counted.labels} labels were counted, and now it has {found.tokens} and "
                f"{found.labels}: remove {self.reader.counts.path}, then start the run again"
            )

    def _tokenised(self, sample: int, read: dict[int, ModelSequence]) -> Counted:
        sequence, encoded = self.reader.sequence(sample)
        read[sample] = sequence
        return Counted.of(sequence, encoded)

    def _read(self, step: Step) -> StepBatch:
        # Weights and balance depend on the tokens of the whole step. Each rank begins elsewhere, so
        # that what nobody counted yet is tokenised by one of them and known to the others.
        samples = [sample for sample, _ in step.samples]
        begin = self.rank * len(samples) // self.world_size
        read: dict[int, ModelSequence] = {}
        counted = {
            sample: self._count(sample, read) for sample in samples[begin:] + samples[:begin]
        }
        counts = [counted[sample].labels for sample in samples]
        weights = token_weights(
            counts,
            [number for _, number in step.samples],
            num_groups=step.num_groups,
            semantics=self.loss_semantics,
        )
        lengths = [counted[sample].tokens for sample in samples]
        split = split_step(
            lengths,
            world_size=self.world_size,
            micro_batch_size=self.micro_batch_size,
            tokens_per_micro_batch=self.tokens_per_micro_batch,
        )
        per_sample = weights.per_sample.tolist()

        def weighted(position: int) -> WeightedSample:
            sample = samples[position]
            self._check_count(sample, counted[sample], read)
            return WeightedSample(
                sequence=read[sample],
                image=self.reader.image(sample),
                weight=per_sample[position],
                position=position,
                sample_id=self.reader.index.sample_id(sample),
            )

        return StepBatch(
            index=step.index,
            micro_batches=[
                pack(
                    [weighted(position) for position in positions],
                    layout=self.reader.layout,
                    image_size=self.reader.processor.size,
                )
                for positions in split[self.rank]
            ],
            samples=len(samples),
            tokens=sum(lengths),
            squares=sum(length**2 for length in lengths),
            images=int((self.reader.index.modality_lengths[samples] >= 0).sum()),
            label_positions=weights.label_positions,
            masked_samples=sum(count == 0 for count in counts),
            empty_groups=len(weights.empty_groups),
            notes=Counter(note for sample in samples for note in counted[sample].notes),
        )
