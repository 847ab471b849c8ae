"""Work beside the main thread: what reads, hashes and writes does not hold Python's lock."""

import threading
from collections.abc import Callable
from typing import Any


class Worker(threading.Thread):
    """A thread that keeps its result or its error; a process that ends does not wait for it."""

    def __init__(self, action: Callable[[], Any], *, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.action, self.result = action, None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.action()
        except BaseException as error:  # told where the result is asked for
            self.error = error

    def wait(self) -> Any:
        """What the action returned, once it has; raises what it raised."""
        self.join()
        if self.error is not None:
            raise self.error
        return self.result
