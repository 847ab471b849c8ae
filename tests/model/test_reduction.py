"""Efficient DC against torch's own interpolation, forward and gradients, on both towers."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig

from densekit.errors import DataError, UsageError
from densekit.model.config import model_config
from densekit.model.connectors.reduction import mean_of_blocks
from densekit.model.init import initial_projector
from densekit.model.projector import Projector
from densekit.recipes.load import load_recipe
from densekit.spec.architectures import shape_of
from densekit.spec.connector import Connector
from densekit.spec.vision import ImageLayout

GROUPS = ((*range(12),), (*range(12, 24),))
SIDE, TOWER, HIDDEN = 4, 3, 5


def efficient(place: str) -> Connector:
    return Connector(kind="dci", groups=GROUPS, reduce_tokens=place)


def interpolated(tokens: torch.Tensor) -> torch.Tensor:
    """[I, P, C] -> [I, P / 4, C] as the paper says it: bilinear, to half the sides."""
    side = int(tokens.shape[1] ** 0.5)
    grid = tokens.transpose(1, 2).unflatten(2, (side, side))
    small = F.interpolate(grid, (side // 2, side // 2), mode="bilinear", align_corners=False)
    return small.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("side", [2, 4, 24])
def test_two_by_two_means_are_the_bilinear_interpolation(side: int) -> None:
    tokens = torch.randn(3, side**2, 7, generator=torch.Generator().manual_seed(side))
    found = mean_of_blocks(tokens)
    torch.testing.assert_close(found, interpolated(tokens), atol=1e-6, rtol=0)
    pooled = F.avg_pool2d(tokens.transpose(1, 2).unflatten(2, (side, side)), 2)
    torch.testing.assert_close(found, pooled.flatten(2).transpose(1, 2), atol=1e-6, rtol=0)
    assert mean_of_blocks(tokens.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("place", ["before_projector", "after_projector"])
def test_projector_reduces_where_the_recipe_says(place: str) -> None:
    connector = efficient(place)
    with torch.device("meta"):
        projector = Projector(connector, TOWER, HIDDEN)
    weights = initial_projector(projector, seed=7)
    projector.to_empty(device="cpu").load_state_dict(weights)
    given = torch.randn(2, SIDE**2, 3 * TOWER, generator=torch.Generator().manual_seed(1))
    plain = {name: value.clone().requires_grad_() for name, value in weights.items()}
    x = interpolated(given) if place == "before_projector" else given
    x = F.gelu(F.linear(x, plain["0.weight"], plain["0.bias"]))
    x = F.linear(x, plain["2.weight"], plain["2.bias"])
    expected = interpolated(x) if place == "after_projector" else x
    found = projector(given)
    assert found.shape == (2, connector.tokens(SIDE**2), HIDDEN)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    for name, parameter in projector.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name].grad, atol=1e-5, rtol=0)


def test_places_give_other_numbers() -> None:
    """GELU lies between, so the reading matters."""
    with torch.device("meta"):
        projector = Projector(efficient("after_projector"), TOWER, HIDDEN)
    weights = initial_projector(projector, seed=7)
    given = torch.randn(1, 16, 9, generator=torch.Generator().manual_seed(1)) * 3
    found = []
    for place in ("before_projector", "after_projector"):
        each = Projector(efficient(place), TOWER, HIDDEN)
        each.load_state_dict(weights)
        found.append(each(given))
    assert (found[0] - found[1]).abs().max() > 1e-2


def test_tokens_at_the_papers_size() -> None:
    for name, projected in (("efficient", 576), ("efficient_before", 144)):
        for stage in (1, 2):
            shape = shape_of(load_recipe(f"vicuna7b_clip_{name}_stage{stage}"))
            assert (shape.image_tokens, shape.connector.projected) == (144, projected)
            assert shape.connector.features == 576 and shape.connector.width == 3072
    layout = ImageLayout(patches=576, connector=efficient("after_projector"))
    assert layout.max_tokens == 144


def test_towers_and_kinds_whose_tokens_cannot_be_reduced_are_refused(golden: Path) -> None:
    siglip = "models.vision_tower=models:google/siglip-so400m-patch14-384"
    with pytest.raises(UsageError, match=r"27 x 27: 27 is odd.*omit connector\.reduce_tokens"):
        shape_of(load_recipe("vicuna7b_clip_efficient_stage1", [siglip]))
    models = golden / "models"
    assert AutoConfig.from_pretrained(models / "siglip_tiny").model_type == "siglip_vision_model"
    with pytest.raises(DataError, match="27 is odd"):
        model_config(models / "llm_tiny", models / "siglip_tiny", efficient("after_projector"))
    with pytest.raises(UsageError, match="tokens of kind sti are no grid"):
        load_recipe("vicuna7b_clip_sti_stage1", ["connector.reduce_tokens=after_projector"])
