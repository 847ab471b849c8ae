"""The trainer: everything that happens between `densekit train RUN_DIR` and a complete run."""
