"""A worker's result and its error."""

import threading
from pathlib import Path

import pytest

from densekit.train.background import Worker


def test_a_worker_keeps_its_result_and_its_error() -> None:
    gate = threading.Event()
    worker = Worker(lambda: gate.wait() and 7, name="seven")
    worker.start()
    assert worker.is_alive() and worker.daemon and worker.name == "seven"
    gate.set()
    assert worker.wait() == worker.wait() == 7
    broken = Worker(lambda: Path("nowhere").read_text(), name="broken")
    broken.start()
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            broken.wait()
