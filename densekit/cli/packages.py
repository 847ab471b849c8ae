"""What only some commands need to be installed."""

from importlib.util import find_spec

from densekit.errors import UsageError

TRAINING_PACKAGES = ("torch", "transformers", "accelerate", "peft", "deepspeed")


def need_training_packages() -> None:
    """Raises UsageError that names the packages which training needs and this Python lacks."""
    missing = [name for name in TRAINING_PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} not installed: run `make setup` (`make setup-driver` installs "
            "the command line alone)"
        )
