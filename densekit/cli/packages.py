"""What only some commands need to be installed."""

import gc

from densekit.cli import USUAL
from densekit.errors import UsageError


def need_training_packages() -> None:
    """For verbs that compute with torch, and go on for long: tensors in a circle of objects are
    freed as soon as ever. Raises UsageError where this Python lacks what the trainer imports.
    """
    gc.set_threshold(*USUAL)
    from densekit.launch.launchers.trainer_command import missing_packages

    if missing := missing_packages():
        raise UsageError(f"{', '.join(missing)} not installed: run `make setup` for training")
