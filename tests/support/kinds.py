"""The four kinds of tests, of which every test has exactly one.

unit    starts no process: seconds in all, and what a change is tried with
ranks   starts processes of this machine: the command line, ranks that train
system  needs what lies outside: a container engine, Slurm
gpu     needs a CUDA device

A kind is a mark of the test or of its module; a fixture that only one kind can have stands for the
mark. Without either a test is `unit`, and a unit test that starts a process fails and says so: a
new test cannot slip into the wrong kind. `slow` is no kind: it takes tests of the other kinds out
of `make test` and `make test-system` and leaves them to `make test-all`.
"""

import sys
from collections.abc import Iterator

import pytest

KINDS = ("unit", "ranks", "system", "gpu")
OF_FIXTURE = {"container_engine": "system", "slurm": "system", "workplace": "ranks"}
"""Fixtures that start processes, and the kind of every test that uses one."""
STARTS_A_PROCESS = (
    "subprocess.Popen",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
)
UNIT_SECONDS = 120
"""A unit test that takes longer is stopped: most take milliseconds, the first ones import torch."""
KIND = pytest.StashKey[str]()


def kind_of(item: pytest.Item) -> str:
    """The kind of a test. Raises UsageError when its marks and fixtures do not agree on one."""
    marked = {mark.name for mark in item.iter_markers() if mark.name in KINDS}
    used = {OF_FIXTURE[name] for name in getattr(item, "fixturenames", ()) if name in OF_FIXTURE}
    needed = max(used, key=KINDS.index, default="unit")
    if len(marked) > 1:
        raise pytest.UsageError(f"{item.nodeid}: has several kinds: {', '.join(sorted(marked))}")
    kind = next(iter(marked), needed)
    if KINDS.index(kind) < KINDS.index(needed):
        raise pytest.UsageError(f"{item.nodeid}: is marked `{kind}`, and its fixtures `{needed}`")
    if kind == "unit" and item.get_closest_marker("slow"):
        raise pytest.UsageError(f"{item.nodeid}: no unit test is slow; speed it up or mark a kind")
    return kind


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        kind = item.stash[KIND] = kind_of(item)
        if not item.get_closest_marker(kind):
            item.add_marker(kind)
        if kind == "unit" and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(UNIT_SECONDS))
    # Whole files go to whichever worker is free: the long ones first.
    items.sort(key=lambda item: item.stash[KIND] == "unit")


class Guard:
    """Keeps unit tests from starting processes."""

    def __init__(self) -> None:
        self.test: str | None = None
        """The unit test that runs."""
        self.started: str | None = None
        """What it tried to start: a test may catch the error, and fails all the same."""
        sys.addaudithook(self._audit)  # there is no way to remove one: it idles between the tests

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.test is not None and event in STARTS_A_PROCESS:
            what = f" ({arguments[0]})" if arguments else ""
            self.started = f"a unit test starts a process{what}: mark it `ranks` or `system`"
            raise AssertionError(self.started)


GUARD = Guard()


def guarded(item: pytest.Item) -> Iterator[None]:
    """One phase of a test; that of a unit test fails when it starts a process."""
    if item.stash[KIND] != "unit":
        return (yield)
    GUARD.test, GUARD.started = item.nodeid, None
    try:
        yield
    finally:
        GUARD.test = None
    if GUARD.started:
        pytest.fail(GUARD.started, pytrace=False)


pytest_runtest_setup = pytest.hookimpl(wrapper=True)(guarded)
pytest_runtest_call = pytest.hookimpl(wrapper=True)(guarded)
