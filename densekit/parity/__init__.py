"""Parity: densekit's own computation against numbers recorded from the official code."""
