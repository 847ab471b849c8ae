"""What only some commands need to be installed."""

from densekit.errors import UsageError


def need_training_packages() -> None:
    """Raises UsageError where this Python lacks what the trainer imports."""
    from densekit.launch.launchers.trainer_command import missing_packages

    if missing := missing_packages():
        raise UsageError(f"{', '.join(missing)} not installed: run `make setup` for training")
