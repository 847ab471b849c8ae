"""Connector arithmetic against the modules that compute, and tokens of an image."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from densekit.model.connectors import dense_features
from densekit.spec.connector import KINDS, POOL_SIZE, Connector, Learned, high_level_layer
from densekit.spec.vision import ImageLayout

LAYERS, HIDDEN = 6, 4
LEARNED = Learned(shared=True, high_level=False, bias=True)
INDICES = st.integers(0, LAYERS)
CONNECTORS = st.one_of(
    st.just(Connector(kind="none")),
    st.builds(
        Connector,
        kind=st.sampled_from(["sti", "sci"]),
        layers=st.lists(INDICES, min_size=1, max_size=3, unique=True).map(tuple),
    ),
    st.builds(
        Connector,
        kind=st.sampled_from(["sti_conv1d", "sci_conv2d"]),
        layers=st.lists(INDICES, min_size=1, max_size=3, unique=True).map(tuple),
        learned=st.just(LEARNED),
    ),
    st.builds(
        Connector,
        kind=st.just("dci_linear"),
        groups=st.lists(
            st.lists(INDICES, min_size=1, max_size=3, unique=True).map(tuple),
            min_size=1,
            max_size=3,
        ).map(tuple),
        learned=st.just(LEARNED),
    ),
    st.builds(
        Connector,
        kind=st.just("dci"),
        groups=st.lists(
            st.lists(INDICES, min_size=1, max_size=3, unique=True).map(tuple),
            min_size=1,
            max_size=3,
        ).map(tuple),
    ),
)


@given(CONNECTORS, st.integers(POOL_SIZE, 40))
def test_tokens_width_and_last_layer_are_those_of_the_module(
    connector: Connector, patches: int
) -> None:
    read = 0

    def hidden_states() -> object:
        nonlocal read
        for index in range(connector.last_layer(LAYERS) + 1):
            read = index
            yield torch.full((2, patches, HIDDEN), float(index))

    features = dense_features(hidden_states(), connector, tower_layers=LAYERS)  # type: ignore[arg-type]
    assert features.shape == (2, connector.features(patches), connector.feature_width(HIDDEN))
    assert read == connector.last_layer(LAYERS)
    assert torch.equal(
        features[:, :patches, :HIDDEN],
        torch.full((2, patches, HIDDEN), float(high_level_layer(LAYERS))),
    ), "the high-level layer comes first"


def test_every_kind_is_exercised() -> None:
    plain = {"none", "sti", "sci", "dci"}
    assert set(KINDS) == {*plain, "sti_conv1d", "sci_conv2d", "dci_linear"}


def test_sti_adds_pooled_tokens_and_the_others_channels() -> None:
    sti = Connector(kind="sti", layers=(7, 15))
    assert sti.tokens(576) == 576 + 2 * (576 // POOL_SIZE) and sti.width(1024) == 1024
    sci = Connector(kind="sci", layers=(7, 15))
    assert sci.tokens(576) == 576 and sci.width(1024) == 3 * 1024
    assert sci.states_alive == 3 and Connector(kind="none").states_alive == 1


def test_image_layout_has_as_many_tokens_for_every_image() -> None:
    layout = ImageLayout(patches=576, connector=Connector(kind="sti", layers=(7,)))
    assert layout.max_tokens == 648
    assert {layout.tokens(size) for size in ((1, 1), (336, 336), (4000, 30))} == {648}
