"""Patch info mining beside plain torch: forward, gradients, sizes, and towers that do not fit."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from densekit.errors import DataError
from densekit.model.init import initial_projector
from densekit.model.inspection import inspect
from densekit.model.projector import Projector
from densekit.model.towers.convnext import (
    HighResolutionTower,
    conv_config,
    load_high_resolution_tower,
)
from densekit.spec.connector import Connector
from densekit.spec.mining import (
    CONV_TOWERS,
    Mining,
    conv_tower_of,
    normalisation_of,
    read_conv_tower,
)
from densekit.spec.model_parts import ModelParts
from tests.support.second_tower import conv_weights, open_clip

MINING = Mining(image_size=128, window=8, drop_path=0)
CONNECTOR = Connector(kind="dci", groups=((0, 1), (2, 3)), mining=MINING)
D, SIDE, OUT = 32, 4, 24


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return conv_weights()


def plain_stages(pixels: Tensor, w: dict[str, Tensor]) -> list[Tensor]:
    """A ConvNeXt of the specification, by timm's names."""

    def norm(x: Tensor, name: str) -> Tensor:
        last = x.permute(0, 2, 3, 1)
        normed = F.layer_norm(
            last, last.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6
        )
        return normed.permute(0, 3, 1, 2)

    x = norm(F.conv2d(pixels, w["stem.0.weight"], w["stem.0.bias"], stride=4), "stem.1")
    stages = []
    for stage in range(4):
        at = f"stages.{stage}"
        if stage:
            x = norm(x, f"{at}.downsample.0")
            x = F.conv2d(x, w[f"{at}.downsample.1.weight"], w[f"{at}.downsample.1.bias"], stride=2)
        for block in range(sum(f"{at}.blocks.{n}.gamma" in w for n in range(9))):
            b = f"{at}.blocks.{block}"
            y = F.conv2d(
                x, w[f"{b}.conv_dw.weight"], w[f"{b}.conv_dw.bias"], padding=3, groups=x.shape[1]
            )
            y = norm(y, f"{b}.norm").permute(0, 2, 3, 1)
            y = F.gelu(F.linear(y, w[f"{b}.mlp.fc1.weight"], w[f"{b}.mlp.fc1.bias"]))
            y = F.linear(y, w[f"{b}.mlp.fc2.weight"], w[f"{b}.mlp.fc2.bias"]) * w[f"{b}.gamma"]
            x = x + y.permute(0, 3, 1, 2)
        stages.append(x)
    return stages


def plain_mining(dense: Tensor, maps: Tensor, w: dict[str, Tensor]) -> Tensor:
    """Mining of the specification, patch by patch."""

    def projected(x: Tensor, name: str) -> Tensor:
        at = f"mining.{name}"
        normed = F.layer_norm(x, x.shape[-1:], w[f"{at}.0.weight"], w[f"{at}.0.bias"])
        return F.linear(normed, w[f"{at}.1.weight"], w[f"{at}.1.bias"])

    rows = []
    for patch in range(SIDE**2):
        top, left = (8 * each for each in divmod(patch, SIDE))
        window = maps[:, :, top : top + 8, left : left + 8].flatten(2).mT
        high = dense[:, patch, :D]
        query, key, value = (
            projected(x, name) for x, name in ((high, "query"), (window, "aux"), (window, "val"))
        )
        attention = (torch.einsum("id,iwd->iw", query, key) / math.sqrt(D)).softmax(-1)
        mined = torch.einsum("iw,iwd->id", attention, value)
        rows.append(torch.cat([high + mined, dense[:, patch, D:]], dim=-1))
    return torch.stack(rows, dim=1)


def test_tower_and_mining_are_their_plain_reference(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = open_clip(tmp_path / "tower", weights)
    config = conv_config(folder, MINING)
    tower = load_high_resolution_tower(folder, config, torch.float32).eval()
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, 128, 128, generator=generator)
    with torch.no_grad():
        windows = tower.windows(pixels, MINING.window)
        stages = plain_stages(pixels, weights)
    maps = torch.cat([stages[0], *(_upsampled(x, 32) for x in stages[1:])], dim=1)
    projector = Projector(CONNECTOR, D, OUT, window_channels=maps.shape[1])
    drawn = initial_projector(projector, seed=3)
    # Norms start at 1 and 0, and small queries make attention uniform: both show nothing.
    for name, value in drawn.items():
        if name.startswith("mining."):
            value.add_(torch.randn(value.shape, generator=generator) * 0.3)
    projector.load_state_dict(drawn)
    plain = {name: value.clone().requires_grad_() for name, value in drawn.items()}
    dense = torch.randn(2, SIDE**2, 3 * D, generator=generator)
    expected = plain_mining(dense, maps, plain)
    assert projector.mining is not None
    torch.testing.assert_close(projector.mining(dense, windows), expected, atol=5e-5, rtol=0)
    hidden = F.gelu(F.linear(expected, plain["0.weight"], plain["0.bias"]))
    whole = F.linear(hidden, plain["2.weight"], plain["2.bias"])
    found = projector(dense, windows)
    weight = torch.randn(found.shape, generator=generator)
    for output in (found, whole):
        (output * weight).sum().backward()
    for name, parameter in projector.named_parameters():
        difference = (parameter.grad - plain[name].grad).norm()
        if name in ("mining.aux.0.bias", "mining.aux.1.bias"):  # softmax ignores it
            assert difference <= 1e-4
        else:
            assert difference <= 1e-5 * plain[name].grad.norm(), name


def _upsampled(x: Tensor, size: int) -> Tensor:
    """Bilinear with half-pixel centres, written out for one axis after the other."""
    for dim in (2, 3):
        n = x.shape[dim]
        at = ((torch.arange(size) + 0.5) * n / size - 0.5).clamp(0)
        low = at.long().clamp(max=n - 1)
        high = (low + 1).clamp(max=n - 1)
        share = (at - low).reshape([-1 if d == dim else 1 for d in range(4)])
        x = x.index_select(dim, low) * (1 - share) + x.index_select(dim, high) * share
    return x


def test_stochastic_depth_is_on_in_training_alone(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = open_clip(tmp_path / "tower", weights)
    mining = MINING.model_copy(update={"drop_path": 0.9})
    tower = load_high_resolution_tower(folder, conv_config(folder, mining), torch.float32)
    pixels = torch.randn(8, 3, 128, 128, generator=torch.Generator().manual_seed(1))

    def seeded(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return tower.windows(pixels, 8)

    with torch.no_grad():
        tower.train()
        assert torch.equal(seeded(1), seeded(1)) and not torch.equal(seeded(1), seeded(2))
        tower.eval()
        assert torch.equal(seeded(1), seeded(2))


def test_parameter_counts_at_the_papers_size() -> None:
    (shape,) = CONV_TOWERS.values()
    from transformers import ConvNextConfig

    config = ConvNextConfig(hidden_sizes=[*shape.widths], depths=[*shape.depths])
    with torch.device("meta"):
        tower = HighResolutionTower(config)
        mining = Mining(image_size=768, window=8, drop_path=0.1)
        connector = Connector(kind="dci", groups=((*range(12),), (*range(12, 24),)), mining=mining)
        projector = Projector(connector, 1024, 4096, window_channels=shape.channels)
    assert sum(p.numel() for p in tower.parameters()) == shape.parameters == 196_227_264
    assert shape.channels == 2880
    assert projector.mining is not None
    counted = sum(p.numel() for p in projector.mining.parameters())
    assert counted == connector.mining_parameters(1024, 2880) == 6_963_456
    linears = sum(p.numel() for name, p in projector.named_parameters() if name[0].isdigit())
    # Vicuna-7B, CLIP's vision model, stem and stages, mining, projector (7.27 B as released).
    assert 6_738_415_616 + 303_507_456 + 196_227_264 + counted + linears == 7_274_482_112


def test_size_is_read_from_the_weights(weights: dict[str, Tensor], tmp_path: Path) -> None:
    shape = read_conv_tower(open_clip(tmp_path / "tower", weights))
    assert (shape.widths, shape.depths) == ((8, 16, 32, 64), (1, 1, 2, 1))
    assert shape.parameters == sum(value.numel() for value in weights.values())


def parts(golden: Path, tower: Path, **mining: Any) -> ModelParts:
    connector = CONNECTOR.model_copy(update={"mining": MINING.model_copy(update=mining)})
    return ModelParts(
        language_model=golden / "models" / "llm_tiny",
        vision_tower=golden / "models" / "clip_tiny",
        high_resolution_tower=tower,
        connector=connector,
        connector_weights=None,
        max_length=64,
    )


def test_towers_that_fit_have_no_problem(
    golden: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    assert inspect(parts(golden, open_clip(tmp_path / "tower", weights))) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("grid", "the vision tower has 4 x 4 patches, which need 32 x 32"),
        ("small", "image_size is 16, and the 4 stages of the ConvNeXt"),
        ("normalisation", "use towers of one normalisation"),
        ("other", "are not those of a ConvNeXt"),
        ("config", "says nowhere how pixels are normalised"),
    ],
)
def test_towers_that_do_not_fit(
    golden: Path, weights: dict[str, Tensor], tmp_path: Path, change: str, message: str
) -> None:
    folder = tmp_path / "tower"
    if change == "other":
        open_clip(folder, {"blocks.0.weight": torch.ones(1)})
    else:
        open_clip(folder, weights, **({"mean": [0.5] * 3} if change == "normalisation" else {}))
    if change == "config":
        (folder / "open_clip_config.json").unlink()
    sizes = {"grid": {"image_size": 96}, "small": {"image_size": 16, "window": 1}}
    problems = inspect(parts(golden, folder, **sizes.get(change, {})))
    assert len(problems) == 1 and message in problems[0]


@pytest.mark.parametrize("mean", ["abc", [0.5], ["a", "b", "c"], None])
def test_pixels_of_the_vision_tower_are_three_numbers(
    golden: Path, weights: dict[str, Tensor], tmp_path: Path, mean: Any
) -> None:
    given = parts(golden, open_clip(tmp_path / "tower", weights))
    vision = tmp_path / "vision"
    shutil.copytree(given.vision_tower, vision)
    config = vision / "preprocessor_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"image_mean": mean}))
    (problem,) = inspect(given.model_copy(update={"vision_tower": vision}))
    assert "preprocessor_config.json: image_mean is not three numbers" in problem


@pytest.mark.parametrize("fault", ["missing", "shape", "unexpected"])
def test_nothing_is_drawn(weights: dict[str, Tensor], tmp_path: Path, fault: str) -> None:
    changed = dict(weights)
    name = "stages.2.blocks.0.mlp.fc1.weight"
    if fault == "unexpected":
        changed["stages.0.blocks.0.grn.weight"] = torch.ones(8)
    elif fault == "missing":
        del changed[name]
    else:
        changed[name] = torch.ones(2, 2)
    folder = open_clip(tmp_path / "tower", changed)
    with pytest.raises(DataError, match=f"1 .*{fault}"):
        load_high_resolution_tower(folder, conv_config(folder, MINING), torch.float32)


@pytest.mark.parametrize("mean", [0.5, [0.5], ["a", "b", "c"], [True] * 3])
def test_what_normalises_no_pixels_is_refused(tmp_path: Path, mean: Any) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"pretrained_cfg": {"mean": mean, "std": [0.5] * 3}}), encoding="utf-8"
    )
    with pytest.raises(DataError, match="three numbers each: download"):
        normalisation_of(tmp_path)


@pytest.mark.parametrize("shape", [(), (3, 4)])
def test_a_gamma_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="not one number a channel"):
        conv_tower_of({"stages.0.blocks.0.gamma": shape}, tmp_path)
