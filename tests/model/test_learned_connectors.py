"""Connectors with trainable modules against plain torch on hidden states of both towers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionModel, SiglipVisionModel

from densekit.model.connectors import dense_features
from densekit.model.init import initial_projector
from densekit.model.projector import Projector
from densekit.recipes.load import load_recipe
from densekit.spec.architectures import shape_of
from densekit.spec.connector import Connector

HIDDEN, EMBEDDING, IMAGES = 32, 6, 2
GROUPS = ((0, 1, 2), (3, 4, 5, 6))
Weights = Callable[[int, str], Tensor]


@pytest.fixture(scope="module", params=["clip_tiny", "siglip_tiny"])
def states(request: pytest.FixtureRequest, golden: Path) -> list[Tensor]:
    """Hidden states of one tower without CLS, all of them."""
    classes = {"clip_tiny": CLIPVisionModel, "siglip_tiny": SiglipVisionModel}
    stock = classes[request.param].from_pretrained(golden / "models" / request.param).eval()
    size = stock.config.image_size
    pixels = torch.randn(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = list(stock(pixels, output_hidden_states=True).hidden_states)
    return [state[:, 1:] for state in found] if request.param == "clip_tiny" else found


def sti_conv1d(states: list[Tensor], high: int, connector: Connector, at: Weights) -> Tensor:
    pooled = [
        F.conv1d(states[layer].mT, at(i, "weight"), at(i, "bias"), stride=8).mT
        for i, layer in enumerate(connector.layers)
    ]
    return torch.cat([states[high], *pooled], dim=1)


def sci_conv2d(states: list[Tensor], high: int, connector: Connector, at: Weights) -> Tensor:
    side = int(states[0].shape[1] ** 0.5)
    layers = [high, *connector.layers]
    passing = layers if connector.learned.high_level else layers[1:]
    made = []
    for layer in layers:
        tokens = states[layer]
        if layer in passing:
            i = passing.index(layer)
            grid = tokens.mT.unflatten(2, (side, side))
            tokens = F.conv2d(grid, at(i, "weight"), at(i, "bias"), padding=1).flatten(2).mT
        made.append(tokens)
    return torch.cat(made, dim=2)


def dci_linear(states: list[Tensor], high: int, connector: Connector, at: Weights) -> Tensor:
    def one(layer: int, i: int) -> Tensor:
        normed = F.layer_norm(states[layer], (HIDDEN,), at(i, "norm.weight"), at(i, "norm.bias"))
        return F.linear(normed, at(i, "linear.weight"), at(i, "linear.bias"))

    first = int(connector.learned.high_level)
    means = [
        torch.stack([one(layer, i + first) for layer in group]).mean(0)
        for i, group in enumerate(connector.groups)
    ]
    return torch.cat([one(high, 0) if first else states[high], *means], dim=2)


CASES = [
    (sti_conv1d, {"layers": (7, 15)}, True, False),
    (sti_conv1d, {"layers": (7, 15)}, False, False),
    (sci_conv2d, {"layers": (7, 15)}, True, True),
    (sci_conv2d, {"layers": (7, 15)}, False, False),
    (dci_linear, {"groups": GROUPS}, True, False),
    (dci_linear, {"groups": (*GROUPS, (7, 23))}, False, True),
]


@pytest.mark.parametrize(("reference", "reads", "shared", "high_level"), CASES)
def test_trained_connector_is_its_plain_reference(
    states: list[Tensor],
    reference: Callable[..., Tensor],
    reads: dict[str, tuple],
    shared: bool,
    high_level: bool,
) -> None:
    learned = {"shared": shared, "high_level": high_level, "bias": True}
    connector = Connector(kind=reference.__name__, learned=learned, **reads)
    layers, patches = len(states) - 1, states[0].shape[1]
    high = layers - 1
    with torch.device("meta"):
        projector = Projector(connector, HIDDEN, EMBEDDING)
    weights = initial_projector(projector, seed=3)
    for name, value in weights.items():  # norms start at 1 and 0, which shows nothing
        if "norm" in name:
            value += torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name)))
    projector.to_empty(device="cpu").load_state_dict(weights)
    plain = {name: value.clone().requires_grad_() for name, value in weights.items()}

    def at(index: int, name: str) -> Tensor:
        return plain[f"connector.{0 if shared else index}.{name}"]

    joined = reference(states, high, connector, at)
    given = dense_features(iter(states), connector, tower_layers=layers)
    assert projector.connector is not None
    assert given.shape == (IMAGES, connector.features(patches), connector.feature_width(HIDDEN))
    torch.testing.assert_close(projector.connector(given), joined, atol=5e-5, rtol=0)
    expected = F.linear(
        F.gelu(F.linear(joined, plain["0.weight"], plain["0.bias"])),
        plain["2.weight"],
        plain["2.bias"],
    )
    found = projector(given)
    assert found.shape == (IMAGES, connector.tokens(patches), EMBEDDING)
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=0)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    for output in (found, expected):
        (output * weight).sum().backward()
    for name, parameter in projector.named_parameters():
        scale = plain[name].grad.norm()
        assert (parameter.grad - plain[name].grad).norm() <= 1e-5 * scale, name


def test_parameter_counts_at_the_papers_size() -> None:
    counts = {"sti_conv": 8_389_632, "sci_conv": 9_438_208, "dci_linear": 1_051_648}
    for name, count in counts.items():
        recipe = load_recipe(f"vicuna7b_clip_{name}_stage2")
        with torch.device("meta"):
            projector = Projector(recipe.connector, 1024, 4096)
        assert projector.connector is not None
        assert sum(p.numel() for p in projector.connector.parameters()) == count
        shape = shape_of(recipe)
        assert shape.connector.learned == count
        total = sum(p.numel() for p in projector.parameters())
        assert shape.projector_parameters == total


def test_own_modules_are_drawn_by_their_own_name() -> None:
    """A connector with modules leaves the projector's draws as they are without."""
    learned = {"shared": True, "high_level": True, "bias": True}
    sci = Connector(kind="sci", layers=(1,))
    conv = Connector(kind="sci_conv2d", layers=(1,), learned=learned)
    drawn = [initial_projector(Projector(each, 8, 4), seed=5) for each in (sci, conv)]
    assert drawn[1].keys() - drawn[0].keys() == {"connector.0.weight", "connector.0.bias"}
    assert all(torch.equal(value, drawn[1][name]) for name, value in drawn[0].items())
    bound = (9 * 8) ** -0.5
    assert 0.9 * bound < drawn[1]["connector.0.weight"].abs().max() <= bound
