"""What only some commands need to be installed."""

from densekit.errors import UsageError


def need_training_packages() -> None:
    from importlib.util import find_spec

    missing = [
        name
        for name in ("torch", "transformers", "accelerate", "peft", "deepspeed")
        if find_spec(name) is None
    ]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} not installed: run `make setup` (this needs the training requirements)"
        )
