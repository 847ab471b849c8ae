"""Connectors: how hidden states of the tower become features."""
