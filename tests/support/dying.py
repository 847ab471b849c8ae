"""Work that ends its process, in a module that a new process imports quickly."""

import os
import signal
from collections.abc import Callable


def dies_on_seven() -> Callable[[int], int]:
    """A function that squares, and ends its process for 7."""

    def work(item: int) -> int:
        if item == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item

    return work
