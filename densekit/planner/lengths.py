"""How long samples are: assumed, or counted when the annotation file was indexed."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densekit.data.image_tokens import ImageTokens
from densekit.data.sample_totals import Counting, kept_totals
from densekit.errors import DataError
from densekit.files.json_files import read_json
from densekit.spec.flops import AverageSample
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from densekit.spec.vision import ImageLayout

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TOKENS_PER_WORD = 1.4
"""Assumed for what is counted in words; the end of an answer and the speakers' names are in it."""
SYSTEM_TOKENS = 40
"""Assumed length of what a template other than `plain` puts before the first turn."""
LABEL_SHARE = 0.55
"""Assumed share of a stage-2 sample's text that is answers."""
LENGTHS_FOLDER = "lengths"
COUNTED = "tokens of every sample, counted by `densekit data count`"


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Text of an average sample, in tokens, and how many samples have no image."""

    with_image: float
    """Text tokens of a sample with an image; the image's own come on top."""
    text_only: float
    text_only_share: float
    source: str


# Stage 2: 40,688 of the 665,298 entries of llava_v1_5_mix665k.json have no image.
CAPTIONS = Lengths(
    with_image=25, text_only=0, text_only_share=0, source="assumed: 25 text tokens in a caption"
)
ASKED_CAPTIONS = Lengths(
    with_image=25 + 15 + SYSTEM_TOKENS,
    text_only=0,
    text_only_share=0,
    source="assumed: 25 text tokens in a caption, 55 in the template and the question before it",
)
CONVERSATIONS = Lengths(
    with_image=200,
    text_only=900,
    text_only_share=40688 / 665298,
    source="assumed: 200 text tokens with an image, 900 without one (6.1 % of the samples)",
)


def lengths_of(recipe: Recipe, cached: Path | None) -> Lengths:
    """What was counted in the recipe's annotation file and cached there, else the assumption for
    its template.
    """
    if cached is not None and cached.is_file():
        try:
            lengths = Lengths(**read_json(cached))
            if all(isinstance(value, int | float) for value in list(asdict(lengths).values())[:3]):
                return lengths
        except (DataError, TypeError):
            pass  # it can always be counted again
    if recipe.stage == 2:
        return CONVERSATIONS
    return CAPTIONS if recipe.data.template == "plain" else ASKED_CAPTIONS


def counted(modality_lengths: "npt.NDArray[np.int64]", template: str) -> dict[str, Any]:
    """Lengths of an index as plain values; `modality_lengths`: words per sample, negative for
    text-only ones.
    """
    lengths = modality_lengths.astype(float)
    system = 0 if template == "plain" else SYSTEM_TOKENS

    def tokens(words: "npt.NDArray[np.float64]") -> float:
        return round(float(words.mean()) * TOKENS_PER_WORD + system, 1) if words.size else 0.0

    return asdict(
        Lengths(
            with_image=tokens(lengths[lengths >= 0]),
            text_only=tokens(-lengths[lengths < 0]),
            text_only_share=float((lengths < 0).mean()),
            source=f"words counted in the annotation file, {TOKENS_PER_WORD} tokens each",
        )
    )


def average_sample(recipe: Recipe, lengths: Lengths, image_tokens: int) -> AverageSample:
    """The average sample of a recipe; nothing is longer than its `data.max_length`."""
    limit = recipe.data.max_length
    image, text = min(image_tokens + lengths.with_image, limit), min(lengths.text_only, limit)
    share = lengths.text_only_share
    label_share = 1.0 if recipe.data.template == "plain" else LABEL_SHARE
    answers = (1 - share) * max(image - image_tokens, 0) + share * text
    return AverageSample(
        tokens=(1 - share) * image + share * text,
        squares=(1 - share) * image**2 + share * text**2,
        images=1 - share,
        label_positions=label_share * answers,
    )


def counted_sample(recipe: Recipe, roots: Roots, layout: ImageLayout) -> AverageSample | None:
    """The average sample as `densekit data count` found it; None where it did not count these
    data.
    """
    sized = ImageTokens(layout=layout, folder=roots.resolve(recipe.data.images))
    counting = Counting(
        annotations=roots.resolve(recipe.data.annotations),
        tokenizer=roots.resolve(recipe.models.tokenizer_folder),
        template=recipe.data.template,
        semantics=recipe.semantics_of("L1"),
        max_length=recipe.data.max_length,
        image_tokens=layout.max_tokens,
        sized=sized if layout.varies else None,
    )
    totals = kept_totals(counting, roots.cache)
    if totals is None or not totals.samples:
        return None
    return AverageSample(
        tokens=totals.tokens / totals.samples,
        squares=totals.squares / totals.samples,
        images=totals.images / totals.samples,
        label_positions=totals.label_positions / totals.samples,
    )
