"""One batch answers as its prompts do alone, and nothing that a folder brings along changes it."""

import pytest
import torch
from transformers import GenerationConfig

from densekit.model.answering import Decoding, generate
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.spec.types import IMAGE_TOKEN_ID
from tests.support.models import small_model

PROMPTS = [
    torch.tensor([5, 9, IMAGE_TOKEN_ID, 44, 3]),
    torch.tensor([7, 20, 31, 8, 60, 2, 12, 90, 41]),
    torch.tensor([IMAGE_TOKEN_ID, 17]),
]
"""With an image, without, with an image."""


@pytest.fixture(scope="module")
def model() -> DenseConnectorForConditionalGeneration:
    return small_model().eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(3))


def greedy(end_tokens: tuple[int, ...] = ()) -> Decoding:
    return Decoding(end_tokens=end_tokens, max_new_tokens=12)


def test_a_batch_answers_as_its_prompts_alone(
    model: DenseConnectorForConditionalGeneration, pixels: torch.Tensor
) -> None:
    whole = generate(model, PROMPTS, pixels, greedy(), logits=True)
    of_prompt = (pixels[:1], None, pixels[1:])
    for number, (prompt, image) in enumerate(zip(PROMPTS, of_prompt, strict=True)):
        alone = generate(model, [prompt], image, greedy(), logits=True)
        assert alone.ids == [whole.ids[number]] and len(alone.ids[0]) == 12
        assert alone.first_logits is not None and whole.first_logits is not None
        torch.testing.assert_close(
            alone.first_logits[0], whole.first_logits[number], atol=1e-5, rtol=0
        )


def test_each_answer_ends_with_its_first_end_token(
    model: DenseConnectorForConditionalGeneration, pixels: torch.Tensor
) -> None:
    free = generate(model, PROMPTS, pixels, greedy()).ids
    ends = (free[0][2], free[1][5])
    for full, cut in zip(free, generate(model, PROMPTS, pixels, greedy(ends)).ids, strict=True):
        places = [place for place, id_ in enumerate(full) if id_ in ends]
        assert cut == (full[: places[0] + 1] if places else full)


def test_tokens_are_handed_on_one_by_one(
    model: DenseConnectorForConditionalGeneration, pixels: torch.Tensor
) -> None:
    seen: list[int] = []
    given = generate(model, PROMPTS[:1], pixels[:1], greedy(), on_token=seen.append)
    assert [seen] == given.ids


def test_settings_of_a_published_folder_change_nothing(pixels: torch.Tensor) -> None:
    model = small_model().eval()
    before = generate(model, PROMPTS, pixels, greedy()).ids
    brought = GenerationConfig(
        repetition_penalty=1.8, do_sample=True, temperature=3.0, eos_token_id=before[0][0]
    )
    model.language_model.generation_config = brought
    assert generate(model, PROMPTS, pixels, greedy()).ids == before
    assert model.language_model.generation_config is brought


def test_sampling_follows_the_seed(
    model: DenseConnectorForConditionalGeneration, pixels: torch.Tensor
) -> None:
    warm = Decoding(end_tokens=(), max_new_tokens=12, temperature=2.0)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(generate(model, PROMPTS, pixels, warm).ids)
    assert drawn[0] == drawn[1] != drawn[2]
