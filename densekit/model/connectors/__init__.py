"""Connectors: how hidden states of the vision tower become dense features, one module per kind.

A module is named after its kind in `spec.connector.KINDS` and has one function,
`join(hidden_states, connector, high)`: it consumes the iterable of hidden states [I, P, D]
(hidden_states[0], [1], ... without CLS) one at a time, so that no more states are alive than the
kind joins, and returns dense features [I, N, C] with N = connector.features(P) and C =
connector.feature_width(D). `high` is the hidden_states index of the high-level layer.

The tower is frozen, so `join` runs without gradients. What a kind trains is in a second class of
its module, `Trained` (a `LearnedConnector`), which the projector calls: the engine shards it there.
"""

from collections.abc import Iterable
from importlib import import_module

from torch import Tensor

from densekit.model.connectors.learned import LearnedConnector
from densekit.spec.connector import Connector, high_level_layer


def dense_features(
    hidden_states: Iterable[Tensor], connector: Connector, *, tower_layers: int
) -> Tensor:
    """Join hidden states [I, P, D] of a tower with `tower_layers` layers into dense features [I, N,
    C] (arXiv 2405.13800 eq. 1-4; order as in the official code: the high-level layer first).
    """
    kind = import_module(f"densekit.model.connectors.{connector.kind}")
    features: Tensor = kind.join(hidden_states, connector, high_level_layer(tower_layers))
    return features


def trained_connector(connector: Connector, width: int) -> LearnedConnector | None:
    """The trainable module of a kind that has one, on a tower with `width` channels."""
    if connector.learned is None:
        return None
    kind = import_module(f"densekit.model.connectors.{connector.kind}")
    trained: LearnedConnector = kind.Trained(connector, width)
    return trained
