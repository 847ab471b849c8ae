"""The docker launcher: one container per run."""
