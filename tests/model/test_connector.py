"""The connector against transformers' own hidden states, for every kind and both towers."""

from pathlib import Path

import pytest
import torch
from densekit.model.connectors.dense import ConnectorSpec, dense_features
from densekit.model.towers.tower import VisionTower
from transformers import AutoModel, CLIPVisionModel, SiglipVisionModel

HIDDEN, IMAGES = 32, 2


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


def _features(folder: Path, pixels: torch.Tensor, spec: ConnectorSpec) -> torch.Tensor:
    config = AutoModel.from_pretrained(folder).config
    tower = VisionTower.from_pretrained(str(folder), config, spec.last_layer, torch.float32)
    with torch.no_grad():
        return dense_features(tower.hidden_states(pixels), spec)


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
        ConnectorSpec(kind="none", feature_layer=high): states[high],
        ConnectorSpec(kind="sci", feature_layer=high, layers=(7, 15)): torch.cat(
            [states[high], states[7], states[15]], dim=-1
        ),
        ConnectorSpec(kind="sti", feature_layer=high, layers=(7, 15)): torch.cat(
            [states[high], pooled(states[7]), pooled(states[15])], dim=1
        ),
        ConnectorSpec(kind="dci", feature_layer=high, groups=groups): dci,
    }
    for spec, wanted in expected.items():
        found = _features(folder, pixels, spec)
        assert found.shape == wanted.shape, spec.kind
        assert found.shape == (IMAGES, spec.num_tokens(states[0].shape[1]), spec.width(HIDDEN))
        torch.testing.assert_close(found, wanted, atol=5e-5, rtol=0)


def test_paper_sizes() -> None:
    sti = ConnectorSpec(kind="sti", feature_layer=26, layers=(7, 15))
    assert (sti.num_tokens(576), sti.num_tokens(729), sti.width(1152)) == (720, 911, 1152)
    four = ConnectorSpec(kind="sci", feature_layer=23, layers=(7, 15, 19))
    assert (four.num_tokens(576), four.width(1024), four.last_layer) == (576, 4096, 23)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "xyz"},
        {"kind": "sti"},
        {"kind": "none", "layers": (1,)},
        {"kind": "dci", "layers": (1,)},
        {"kind": "dci", "groups": ((),)},
        {"kind": "sci", "layers": (-1,)},
    ],
)
def test_wrong_specs_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError):
        ConnectorSpec(feature_layer=3, **arguments)


def test_the_tower_ends_at_the_last_layer_it_needs(golden: Path) -> None:
    folder = golden / "models" / "siglip_tiny"
    config = AutoModel.from_pretrained(folder).config
    tower = VisionTower.from_pretrained(str(folder), config, 15, torch.float32)
    assert len(tower.model.encoder.layers) == 15
    assert not hasattr(tower.model, "head") and not list(tower.model.post_layernorm.parameters())
    with pytest.raises(ValueError, match="27 layers"):
        VisionTower(config, 28)
