"""Following a container: what it writes, and its end."""

import threading
from contextlib import suppress
from typing import Any

from densekit.errors import DataError
from densekit.launch.launchers.docker.client import one_sentence_errors
from densekit.launch.launchers.output import Lines, Warned, say_repeated

POLL_SECONDS = 0.2


class Follower:
    """Shows what a container writes, and waits for its end in a way that Ctrl-C interrupts."""

    def __init__(self, container: Any) -> None:
        self.container = container
        self.code: int | None = None
        self.error: BaseException | None = None
        self.threads = [
            threading.Thread(target=work, daemon=True) for work in (self._show, self._wait)
        ]
        for thread in self.threads:
            thread.start()

    def wait(self) -> int:
        """The exit code."""
        for thread in self.threads:
            while thread.is_alive():
                thread.join(POLL_SECONDS)
        if self.code is None:
            raise self.error or RuntimeError("the container's end was not seen")
        return self.code

    def _show(self) -> None:
        warned = Warned()
        lines = Lines("stdout", warned)
        with suppress(DataError), one_sentence_errors():  # a lost engine shows in _wait
            for chunk in self.container.logs(stream=True, follow=True):
                lines.write(chunk)
        lines.end()
        say_repeated(warned)

    def _wait(self) -> None:
        try:
            with one_sentence_errors():
                self.code = int(self.container.wait(timeout=None)["StatusCode"])
        except BaseException as error:
            self.error = error


def kill_container(container: Any) -> None:
    """Kill a container, which may have ended by itself, and wait for its end."""
    with suppress(DataError), one_sentence_errors():
        container.kill()
    with one_sentence_errors():
        container.wait()
