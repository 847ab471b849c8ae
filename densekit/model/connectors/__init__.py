"""Connectors: how hidden states of the vision tower become dense features, one module per kind.

A module is named after its kind in `spec.connector.KINDS` and has one function,
`join(hidden_states, connector, high)`: it consumes the iterable of hidden states [I, P, D]
(hidden_states[0], [1], ... without CLS) one at a time, so that no more states are alive than the
kind joins, and returns dense features [I, N, C] with N = connector.tokens(P) and C =
connector.width(D). `high` is the hidden_states index of the high-level layer.
"""

from collections.abc import Iterable
from importlib import import_module

from torch import Tensor

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
