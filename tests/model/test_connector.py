"""The connector against transformers' own hidden states, for every kind and both towers."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, CLIPVisionModel, SiglipVisionModel

from densekit.model.connectors import dense_features
from densekit.model.towers import load_tower, make_tower, vision_config_of
from densekit.spec.connector import KINDS, Connector

HIDDEN, IMAGES = 32, 2
LEARNED = {"shared": True, "high_level": False, "bias": True}


@pytest.fixture(scope="module", params=["clip_tiny", "siglip_tiny"])
def tower_states(
    request: pytest.FixtureRequest, golden: Path
) -> tuple[str, Path, torch.Tensor, list[torch.Tensor]]:
    folder = golden / "models" / request.param
    classes = {"clip_tiny": CLIPVisionModel, "siglip_tiny": SiglipVisionModel}
    stock = classes[request.param].from_pretrained(folder).eval()
    size = stock.config.image_size
    pixels = torch.randn(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = list(stock(pixels, output_hidden_states=True).hidden_states)
    if request.param == "clip_tiny":
        states = [state[:, 1:] for state in states]
    return request.param, folder, pixels, states


def _features(folder: Path, pixels: torch.Tensor, connector: Connector) -> torch.Tensor:
    config = AutoModel.from_pretrained(folder).config
    layers = vision_config_of(config).num_hidden_layers
    tower = load_tower(folder, config, connector.last_layer(layers), torch.float32)
    with torch.no_grad():
        return dense_features(tower.hidden_states(pixels), connector, tower_layers=layers)


def test_every_kind_joins_the_states_in_official_order(tower_states: tuple) -> None:
    name, folder, pixels, states = tower_states
    high = 23 if name == "clip_tiny" else 26
    groups = (tuple(range(high // 2 + high % 2)), tuple(range(high // 2 + high % 2, high)))
    dci = torch.cat(
        [states[high], *(torch.stack([states[i] for i in g]).mean(0) for g in groups)], dim=-1
    )

    def pooled(state: torch.Tensor) -> torch.Tensor:
        whole = state.shape[1] // 8 * 8
        return state[:, :whole].unflatten(1, (-1, 8)).mean(2)

    expected = {
        Connector(kind="none"): states[high],
        Connector(kind="sci", layers=(7, 15)): torch.cat(
            [states[high], states[7], states[15]], dim=-1
        ),
        Connector(kind="sti", layers=(7, 15)): torch.cat(
            [states[high], pooled(states[7]), pooled(states[15])], dim=1
        ),
        Connector(kind="dci", groups=groups): dci,
    }
    assert {connector.kind for connector in expected} == {
        name for name, kind in KINDS.items() if kind.weights is None
    }
    for connector, wanted in expected.items():
        found = _features(folder, pixels, connector)
        assert found.shape == wanted.shape, connector.kind
        patches = states[0].shape[1]
        assert found.shape == (IMAGES, connector.tokens(patches), connector.width(HIDDEN))
        torch.testing.assert_close(found, wanted, atol=5e-5, rtol=0)


def test_paper_sizes() -> None:
    sti = Connector(kind="sti", layers=(7, 15))
    assert (sti.tokens(576), sti.tokens(729), sti.width(1152)) == (720, 911, 1152)
    four = Connector(kind="sci", layers=(7, 15, 19))
    assert (four.tokens(576), four.width(1024), four.last_layer(24)) == (576, 4096, 23)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "xyz"},
        {"kind": "sti"},
        {"kind": "none", "layers": (1,)},
        {"kind": "dci", "layers": (1,)},
        {"kind": "dci", "groups": ((),)},
        {"kind": "sci", "layers": (-1,)},
        {"kind": "sci", "layers": (1,), "learned": LEARNED},
        {"kind": "sci_conv2d", "layers": (1,)},
        {"kind": "sti_conv1d", "layers": (1,), "learned": {**LEARNED, "high_level": True}},
        {"kind": "sti", "layers": (1,), "reduce_tokens": "after_projector"},
    ],
)
def test_wrong_connectors_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError):
        Connector(**arguments)


def test_the_tower_ends_at_the_last_layer_it_needs(golden: Path) -> None:
    folder = golden / "models" / "siglip_tiny"
    config = AutoModel.from_pretrained(folder).config
    tower = load_tower(folder, config, 15, torch.float32)
    assert len(tower.model.encoder.layers) == 15
    assert not hasattr(tower.model, "head") and not list(tower.model.post_layernorm.parameters())
    with pytest.raises(ValueError, match="27 layers"):
        make_tower(config, 28)


def test_dci_sums_in_fp32_and_answers_in_the_dtype_of_its_states() -> None:
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(1, 6, 4, generator=generator).bfloat16() for _ in range(9)]
    connector = Connector(kind="dci", groups=((0, 1, 2, 3, 4, 5, 6),))
    found = dense_features(iter(states), connector, tower_layers=9)
    mean = torch.stack([state.double() for state in states[:7]]).mean(0)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, torch.cat([states[8], mean.bfloat16()], dim=-1))
