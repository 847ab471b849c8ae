"""Attention over packed micro-batches: one kernel per backend."""
