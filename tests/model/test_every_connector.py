"""Every connector that a recipe can say, on every tower and with every merge of tiles: refused with
a sentence, or all of it learns, the same in any micro-batch.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from densekit.errors import UsageError
from densekit.model.init import initial_projector
from densekit.model.projector import Projector
from densekit.recipes.load import load_recipe
from densekit.spec.anyres import AnyRes
from densekit.spec.architectures import TOWERS, connector_shape
from densekit.spec.connector import KINDS, Connector
from densekit.spec.recipe import Recipe

READS: dict[str | None, dict[str, Any]] = {
    None: {},
    "layers": {"layers": [1, 3]},
    "groups": {"groups": [[0, 1], [2, 3]]},
}
MINING = {"image_size": 64, "window": 4, "drop_path": 0}
WIDTH, HIDDEN, PATCHES, CHANNELS = 8, 6, 16, 5
LEARNED = [
    dict(zip(("shared", "high_level", "bias"), values, strict=True))
    for values in itertools.product((True, False), repeat=3)
]


def every() -> Iterator[dict[str, Any]]:
    """What a recipe may write as its connector, right or wrong."""
    for kind, reduce_tokens, mining in itertools.product(
        KINDS, ("none", "before_projector", "after_projector"), (None, MINING)
    ):
        for learned in LEARNED if KINDS[kind].weights else [None]:
            yield {
                "kind": kind,
                **READS[KINDS[kind].reads],
                "reduce_tokens": reduce_tokens,
                "mining": mining,
                "learned": learned,
            }


def read(value: dict[str, Any]) -> Connector | None:
    """The connector; None where it is refused, in a sentence."""
    try:
        return Connector.model_validate(value)
    except ValidationError as error:
        (problem,) = error.errors()
        assert problem["type"] == "value_error" and ": " in problem["msg"]
        return None


VALID = [connector for value in every() if (connector := read(value)) is not None]


def test_what_is_refused() -> None:
    """Of 7 kinds, 3 reductions, with and without mining, and 8 choices about a module."""
    kinds = {connector.kind for connector in VALID}
    assert kinds == set(KINDS) and len(VALID) == 3 * 6 + 1 + 4 + 24 + 24
    for connector in VALID:
        assert connector.is_grid or (connector.reduce_tokens == "none" and not connector.mining)
        assert not (connector.learned and connector.mining)


def name_of(connector: Connector) -> str:
    learned = connector.learned
    flags = "".join(name[0] for name, on in learned if on) if learned else ""
    mined = " mining" if connector.mining else ""
    return f"{connector.kind} {connector.reduce_tokens} {flags}{mined}"


@pytest.mark.parametrize("connector", VALID, ids=name_of)
def test_all_of_it_learns_the_same_in_any_micro_batch(connector: Connector) -> None:
    channels = CHANNELS if connector.mining else None
    with torch.device("meta"):
        projector = Projector(connector, WIDTH, HIDDEN, window_channels=channels)
    weights = initial_projector(projector, seed=1)
    generator = torch.Generator().manual_seed(2)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    projector.to_empty(device="cpu").load_state_dict(weights)
    projector.double()
    features = noise(3, connector.features(PATCHES), connector.feature_width(WIDTH))
    windows = noise(3, PATCHES, MINING["window"] ** 2, CHANNELS) if connector.mining else None
    output = noise(3, connector.tokens(PATCHES), HIDDEN)

    def gradients(*parts: slice) -> dict[str, torch.Tensor]:
        projector.zero_grad()
        for part in parts:
            found = projector(features[part], None if windows is None else windows[part])
            assert found.shape == output[part].shape
            (found * output[part]).sum().backward()
        return {name: value.grad.clone() for name, value in projector.named_parameters()}

    whole, split = gradients(slice(None)), gradients(slice(1), slice(1, 3))
    assert whole.keys() == weights.keys()
    for name, value in whole.items():
        # Softmax cancels what every key of a window has in common.
        assert name in ("mining.aux.0.bias", "mining.aux.1.bias") or value.abs().max() > 1e-6, name
        torch.testing.assert_close(split[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("tower", [name for name in TOWERS if not name.startswith("tiny")])
@pytest.mark.parametrize("merge", [None, "spatial_unpad", "spatial", "flat"])
def test_recipes_say_it_or_are_refused(tower: str, merge: str | None) -> None:
    base = load_recipe("vicuna7b_clip_stage2").model_dump(mode="json")
    shape, size = TOWERS[tower], TOWERS[tower].image_size
    tiles = {"pinpoints": [[size, 2 * size], [2 * size, size]], "merge": merge}
    data = base["data"] | {
        "image_aspect_ratio": "anyres" if merge else "pad",
        "anyres": tiles if merge else None,
    }
    for connector in VALID:
        value = connector.model_dump(mode="json")
        models = base["models"]
        if connector.mining:
            models = models | {"high_resolution_tower": "models:laion/any"}
        for rate, lora in itertools.product((None, 1e-6), (None, {"r": 4, "alpha": 8})):
            optimizer = base["optimizer"] | {"tower_learning_rate": rate}
            given = {"connector": value, "models": models, "data": data, "sources": {}}
            given |= {"optimizer": optimizer, "lora": lora}
            refused = bool(
                (merge and not connector.is_grid)
                or (connector.mining and (merge or rate))
                or (rate and lora)
            )
            try:
                recipe = Recipe.model_validate(base | given)
            except ValidationError as error:
                assert refused, error
                continue
            assert not refused
            assert Connector.model_validate(recipe.math().connector.model_dump()) == connector
        anyres = AnyRes.model_validate(tiles) if merge else None
        fits = shape.patches % 2 == 0 or connector.reduce_tokens == "none"
        fits &= not connector.mining  # of 4 x 4 patches
        fits &= connector.is_grid or not merge
        try:
            found = connector_shape(connector, shape, anyres)
        except UsageError:
            assert not fits
            continue
        assert fits and found.image_tokens >= found.min_tokens == connector.tokens(shape.patches)
