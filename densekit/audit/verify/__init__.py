"""Rechecks every hash of a run and of what it was trained from."""
