"""The accelerate object, with nothing inherited from the environment."""

import os

from accelerate import Accelerator


def make_accelerator(device: str) -> Accelerator:
    """An Accelerator on `device` ("cpu" or "cuda").

    ACCELERATE_* and DS_* variables would change what is computed behind the run's back (gradient accumulation,
    engine, precision): they are removed, and named on the terminal.
    """
    inherited = sorted(name for name in os.environ if name.startswith(("ACCELERATE_", "DS_")))
    for name in inherited:
        del os.environ[name]
    if inherited:
        print(f"ignored environment variables: {', '.join(inherited)} (the run directory decides)", flush=True)
    return Accelerator(cpu=device == "cpu")
