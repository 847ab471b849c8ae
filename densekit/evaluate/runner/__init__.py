"""Asks a model the questions of an evaluation; the one part of this room that imports torch."""
