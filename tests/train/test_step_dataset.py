"""What a rank reads of a step: its own samples, and of the others what nobody counted yet."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from text_only import text_reader

from densekit.batching.steps import Step
from densekit.data.annotations import Annotations
from densekit.data.index import SampleIndex
from densekit.data.token_counts import Counted, TokenCounts
from densekit.errors import DataError
from densekit.text.encode import EncodedSample
from densekit.train.step_dataset import StepBatch, StepDataset

SAMPLES, RANKS = 24, 4
STEPS = [
    Step(index=index, groups=list(np.arange(SAMPLES).reshape(4, -1)), num_groups=4)
    for index in range(2)
]


class Words:
    """A word, an id; every second one has a label."""

    pad_id, max_length, semantics = 0, 2048, "faithful"

    def __init__(self) -> None:
        self.encoded: list[str] = []
        self.more = 0

    def encode(self, turns: list[dict[str, str]], *, has_image: bool) -> EncodedSample:
        text = " ".join(turn["value"] for turn in turns)
        self.encoded.append(text)
        ids = np.arange(len(text.split()) + self.more) + 3
        notes = ("truncated",) if len(ids) > 10 else ()
        return EncodedSample(ids, np.where(ids % 2, ids, -100), notes)


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    entries = [
        {
            "conversations": [
                {"from": "human", "value": f"say {number}" + " more" * (number % 9)},
                {"from": "gpt", "value": "well then"},
            ]
        }
        for number in range(SAMPLES)
    ]
    (tmp_path / "train.json").write_text(json.dumps(entries))
    return Annotations.load(tmp_path / "train.json")


def _dataset(annotations: Annotations, counts: TokenCounts | None, rank: int = 0) -> StepDataset:
    return StepDataset(
        text_reader(annotations, Words(), counts),
        STEPS,
        loss_semantics="faithful",
        rank=rank,
        world_size=RANKS,
        micro_batch_size=4,
    )


def _read(dataset: StepDataset, step: int = 0) -> StepBatch:
    batch = dataset[step]
    assert isinstance(batch, StepBatch), batch
    return batch


def _same(one: StepBatch, other: StepBatch) -> bool:
    for ours, theirs in zip(one.micro_batches, other.micro_batches, strict=True):
        for name, value in vars(ours).items():
            found = getattr(theirs, name)
            if not (torch.equal(value, found) if torch.is_tensor(value) else value == found):
                return False
    numbers = ("samples", "tokens", "label_positions", "masked_samples", "empty_groups", "notes")
    return all(getattr(one, name) == getattr(other, name) for name in numbers)


def test_a_rank_tokenises_its_own_samples_and_feeds_what_it_fed_before(
    annotations: Annotations, tmp_path: Path
) -> None:
    tokenised = []
    for rank in range(RANKS):
        alone = _dataset(annotations, None, rank)
        known = _dataset(annotations, TokenCounts.open(tmp_path, {}, SAMPLES), rank)
        for step in range(2):
            wanted, found = _read(alone, step), _read(known, step)
            assert wanted.notes["truncated"] == 4 and _same(wanted, found)
        tokenised.append((len(alone.reader.encoder.encoded), len(known.reader.encoder.encoded)))
    own = SAMPLES // RANKS
    assert tokenised == [(2 * SAMPLES, SAMPLES + own), *[(2 * SAMPLES, 2 * own)] * (RANKS - 1)]


def test_ranks_begin_at_different_samples(annotations: Annotations) -> None:
    firsts = []
    for rank in range(RANKS):
        dataset = _dataset(annotations, None, rank)
        _read(dataset)
        firsts.append(dataset.reader.encoder.encoded[0].split()[1])
    assert firsts == ["0", "6", "12", "18"]


def test_counts_of_taken_samples_are_those_of_their_places_in_the_file(
    annotations: Annotations, tmp_path: Path
) -> None:
    counts = TokenCounts.open(tmp_path, {}, SAMPLES)
    places = np.array([5, 3])
    reader = _dataset(annotations.take(places), counts).reader
    taken = replace(reader, index=SampleIndex.of(annotations).take(places))
    step = Step(index=0, groups=[np.array([0])], num_groups=1)
    dataset = StepDataset(
        taken, [step], loss_semantics="faithful", rank=0, world_size=1, micro_batch_size=1
    )
    assert _read(dataset).micro_batches[0].sample_ids[0].startswith("5:")
    assert (
        counts.get(5) == Counted(tokens=9, labels=4, notes=())
        and len(counts.missing()) == SAMPLES - 1
    )


def test_a_count_that_disagrees_is_an_error(annotations: Annotations, tmp_path: Path) -> None:
    counts = TokenCounts.open(tmp_path, {}, SAMPLES)
    dataset = _dataset(annotations, counts)
    _read(dataset)
    dataset.reader.encoder.more = 1
    error = dataset[1]
    assert isinstance(error, DataError)
    assert "tokens and " in str(error) and f"remove {counts.path}" in str(error)


def test_an_entry_that_changed_since_it_was_indexed_is_an_error(annotations: Annotations) -> None:
    text = annotations.path.read_text().replace("well then", "well what")
    dataset = _dataset(annotations, None)
    annotations.path.write_text(text)
    error = dataset[0]
    assert isinstance(error, DataError)
    assert "entry 0 is not what it was when the file was indexed: the file changed" in str(error)
