"""Checkpoints as the official code and LLaVA's own leave them, read into a folder of densekit's."""
