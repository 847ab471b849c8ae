"""Count the tokens of every sample ahead of training, in several processes.

Training counts what nobody counted before as it goes (densekit.data.token_counts). Counted ahead,
no rank tokenises what another one feeds from the first step on. What is counted is written down at
once, so that a count that was killed goes on where it was.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from densekit.data.annotations import Annotations
from densekit.data.doctor.pool import Job
from densekit.data.index import SampleIndex
from densekit.data.sample_totals import Counting, SampleTotals, keep_totals
from densekit.data.token_counts import Counted, TokenCounts, counting_key
from densekit.errors import DataError
from densekit.text.encode import SampleEncoder
from densekit.text.sequence import model_sequence
from densekit.text.tokenizers.base import load_tokenizer

EVERY_SECONDS = 10.0
"""Between two lines of progress."""
NEVER = sys.maxsize


@dataclass(frozen=True, kw_only=True)
class Count:
    """What counting came to."""

    totals: SampleTotals
    before: int
    """Samples that had been counted before."""
    file: Path
    """Where the counts are kept."""


def count_tokens(counting: Counting, cache: Path, *, workers: int) -> Count:
    """Count what nobody counted yet, with `workers` processes (0: this one), and sum all up, for
    plans too.

    Raises DataError for a cache that cannot be written to, and, once all others are counted, for
    samples that cannot be tokenised.
    """
    annotations = Annotations.load(counting.annotations, cache=cache)
    encoder = _encoder(counting)
    key = counting_key(
        annotations_sha256=annotations.sha256,
        tokenizer=counting.tokenizer,
        template=counting.template,
        semantics=encoder.semantics,
        max_length=encoder.max_length,
        image_tokens=counting.image_tokens,
        sizes=None if counting.sized is None else counting.sized.sizes,
    )
    samples = len(annotations)
    counts = TokenCounts.open(cache, key, samples)
    if not counts.shared:
        raise DataError(
            f"{counts.path} cannot be used, so counts would be lost: remove the file, or give "
            "--cache-dir a folder that can be written to"
        )
    missing = counts.missing()
    job: Job[int, Counted | str] = Job(
        make=sample_counter, arguments=(counting, cache), what="tokens"
    )
    tell = _progress(f"{counting.annotations}: tokens", len(missing), before=samples - len(missing))
    refused: dict[int, str] = {}
    for done, (place, counted) in enumerate(job.run(missing, workers, NEVER), start=1):
        if isinstance(counted, Counted):
            counts.put(place, counted)
        else:
            refused[place] = counted or f"sample {place}: the process that counted it died"
        tell(done)
    if refused:
        first = refused[min(refused)]
        more = f"; {len(refused) - 1} more cannot be counted either" if len(refused) > 1 else ""
        raise DataError(f"{counting.annotations}: {first}{more}; `densekit data verify` lists all")
    images = int((annotations.entries.words >= 0).sum())
    totals = _totals(counts, samples, images)
    keep_totals(counting, cache, totals)
    return Count(totals=totals, before=samples - len(missing), file=counts.path)


def sample_counter(counting: Counting, cache: Path) -> Callable[[int], Counted | str]:
    """A function that counts one sample; a sentence for one that cannot be tokenised."""
    annotations = Annotations.load(counting.annotations, cache=cache)
    index, encoder = SampleIndex.of(annotations), _encoder(counting)

    def count(place: int) -> Counted | str:
        sample = annotations[place]
        if sample.sample_id != index.sample_id(place):
            return f"entry {place} is not what it was when the file was indexed: the file changed"
        try:
            encoded = encoder.encode(sample.conversations, has_image=sample.image is not None)
            sized = counting.sized
            tokens = counting.image_tokens if sized is None else sized.of(sample.image)
        except DataError as error:
            return f"sample {place} (id {sample.entry_id}): {error}"
        sequence = model_sequence(
            encoded,
            pad_id=encoder.pad_id,
            image_tokens=tokens,
            max_length=encoder.max_length,
            semantics=encoder.semantics,
        )
        return Counted.of(sequence, encoded)

    return count


def _encoder(counting: Counting) -> SampleEncoder:
    return SampleEncoder(
        tokenizer=load_tokenizer(counting.tokenizer),
        template=counting.template,
        semantics=counting.semantics,
        max_length=counting.max_length,
    )


def _progress(label: str, total: int, *, before: int) -> Callable[[int], None]:
    """A function that says now and then on standard error how many are done, and when all are."""
    begun = said = time.monotonic()

    def tell(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= EVERY_SECONDS:
            said = now
            left = (now - begun) / done * (total - done)
            minutes, seconds = divmod(round(left), 60)
            of = f"{before + done:,} of {before + total:,}"
            print(f"{label}: {of}, {minutes}:{seconds:02} left", file=sys.stderr, flush=True)

    return tell


def _totals(counts: TokenCounts, samples: int, images: int) -> SampleTotals:
    tokens = squares = longest = labels = 0
    notes: Counter[str] = Counter()
    for place in range(samples):
        counted = counts.get(place)
        if counted is None:  # more tokens than a record holds
            continue
        tokens, labels = tokens + counted.tokens, labels + counted.labels
        squares, longest = squares + counted.tokens**2, max(longest, counted.tokens)
        notes.update(counted.notes)
    return SampleTotals(
        samples=samples,
        images=images,
        tokens=tokens,
        squares=squares,
        longest=longest,
        label_positions=labels,
        notes=dict(sorted(notes.items())),
    )
