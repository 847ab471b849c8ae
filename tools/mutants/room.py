"""Runs the unit tests of a room against one mutant, in a process forked after the slow imports."""

import ast
import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import hypothesis
import pytest

QUICK_SECONDS = 1.0
"""Tests that take more processor time are left out: they would run for every mutant."""
WALL_SECONDS = 1800.0
"""When a process that waits for something is stopped; one that computes is stopped by its processor
time, so that a busy machine makes no verdict.
"""
MEMORY = 4 << 30
"""Bytes of data that a mutant may take, one that never stops collecting."""
CRASHED: dict[str, Any] = {"code": None, "failed": None}
"""What a child tells that did not come to the end of its tests."""


class Failed(Exception):
    """The tests cannot judge a mutant."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`result` is killed, survived or timeout; `by` the test that failed, if it was a test."""

    result: str
    by: str | None
    seconds: float


@dataclass(kw_only=True)
class Room:
    """The unit tests of some paths below `root`."""

    root: Path
    tests: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    """Processor time of each test, without a mutant."""

    def begin(self) -> float:
        """Run the tests once as they are and import here what they import from elsewhere.

        Returns the seconds taken. Raises Failed when a test fails.
        """
        began = time.monotonic()
        told = self._forked(None, limit=600)
        if told is None or told["code"] != 0:
            failed = told and told["failed"]
            raise Failed(f"{' '.join(self.tests)}: not all pass without a mutant (first {failed})")
        self.seconds = told["seconds"]
        for name in told["imported"]:
            with contextlib.suppress(ImportError):  # a name that its package made up
                importlib.import_module(name)
        gc.freeze()
        return time.monotonic() - began

    def quick(self) -> dict[str, float]:
        """The tests that are run against a mutant, with their seconds."""
        return {name: took for name, took in self.seconds.items() if took <= QUICK_SECONDS}

    def judge(self, path: str, tree: ast.Module, *, limit: int) -> Verdict:
        """Run the tests with the module at `path` (relative to root) replaced, to the first failure
        or for `limit` seconds of processor time.
        """
        began = time.monotonic()
        file = self.root / path
        told = self._forked((file, compile(tree, str(file), "exec")), limit=limit)
        seconds = round(time.monotonic() - began, 2)
        if told is None:
            return Verdict(result="timeout", by=None, seconds=seconds)
        result = "survived" if told["code"] == 0 else "killed"
        return Verdict(result=result, by=told["failed"], seconds=seconds)

    def _forked(
        self, mutated: tuple[Path, CodeType] | None, *, limit: int
    ) -> dict[str, Any] | None:
        """What a child tells; None when it was stopped at the limit."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            told = CRASHED
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            try:
                told = self._run(mutated)
            finally:
                os.write(writing, json.dumps(told).encode())
                os._exit(0)
        os.close(writing)
        end = time.monotonic() + WALL_SECONDS
        text, stopped = b"", False
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while not stopped:
                if not select.select([pipe], [], [], max(end - time.monotonic(), 0))[0]:
                    os.kill(child, signal.SIGKILL)
                    stopped = True
                elif piece := pipe.read(1 << 16):
                    text += piece
                else:
                    break
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if stopped or status == -signal.SIGXCPU:
            return None
        verdict: dict[str, Any] = json.loads(text or json.dumps(CRASHED))
        return verdict

    def _run(self, mutated: tuple[Path, CodeType] | None) -> dict[str, Any]:
        os.chdir(self.root)
        sys.path.insert(0, str(self.root))
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        hypothesis.settings.register_profile(
            "mutants",
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=tuple(hypothesis.HealthCheck),
            phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        )
        hypothesis.settings.load_profile("mutants")
        before = set(sys.modules)
        watcher = _Watcher(order=self.quick())
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "unit"]
        if mutated:
            data = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, data[1]))
            sys.meta_path.insert(0, _Finder(*mutated))
        code = int(pytest.main([*options, *self.tests], plugins=[watcher]))
        return {
            "code": code,
            "failed": watcher.failed,
            "seconds": watcher.seconds,
            "imported": [name for name in set(sys.modules) - before if self._foreign(name)],
        }

    def _foreign(self, name: str) -> bool:
        """Whether a module is installed and does not come from below root."""
        file = getattr(sys.modules[name], "__file__", None)
        return file is not None and "site-packages" in Path(file).parts


class _Watcher:
    """Runs the quickest test first; without an order, measures each."""

    def __init__(self, *, order: dict[str, float]) -> None:
        self.order = order
        self.seconds: dict[str, float] = {}
        self.failed: str | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:  # their limits are of the wall clock
            item.own_markers = [mark for mark in item.own_markers if mark.name != "timeout"]
        if self.order:
            known = [item for item in items if item.nodeid in self.order]
            items[:] = sorted(known, key=lambda item: self.order[item.nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        began = time.process_time()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.process_time() - began

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid


class _Finder(MetaPathFinder):
    """Finds one module as another code."""

    def __init__(self, file: Path, code: CodeType) -> None:
        self.file, self.code = file, code

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.origin is None or Path(spec.origin) != self.file:
            return None
        spec.loader = _Loader(name, str(self.file), self.code)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, name: str, file: str, code: CodeType) -> None:
        super().__init__(name, file)
        self.code = code

    def get_code(self, fullname: str) -> CodeType:
        return self.code
