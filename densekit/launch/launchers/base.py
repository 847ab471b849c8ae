"""What every launcher is: it checks, shows, starts and waits for, finds again and stops the trainer
processes of a run. What they compute is no matter to it.

A new launcher is one subclass of `Launcher` in this folder and one line in registry.py.
"""

import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NoReturn, Self

from densekit.errors import KILLED_CODE, DataError, UsageError
from densekit.launch.host_gpus import Gpu
from densekit.launch.launchers.conversion import convert_here
from densekit.launch.launchers.exchange import exchange_here
from densekit.launch.launchers.inspection import inspect_here
from densekit.launch.launchers.options import LauncherOptions
from densekit.launch.launchers.paths import host_paths, refuse_paths
from densekit.launch.launchers.talk import talk_here
from densekit.launch.launchers.trainer_command import missing_packages
from densekit.runs.layout import RunDir, WorkDir
from densekit.runs.model_verdicts import installed_packages
from densekit.runs.process_handle import ProcessHandle, write_handle
from densekit.runs.trackers import require_trackers
from densekit.spec.check import Check
from densekit.spec.conversion import ConversionReport, ConversionRequest
from densekit.spec.exchange import ExchangeReport, ExchangeRequest
from densekit.spec.execution import Execution
from densekit.spec.math import Math
from densekit.spec.model_parts import ModelParts
from densekit.spec.roots import Roots
from densekit.spec.talk import TalkRequest

UNDER_WAY = ("created", "running")
"""States of a run whose trainer was started and has not ended."""


class LostContactError(DataError):
    """What a launcher asked does not answer any more; what it started may well go on."""


class Launcher(ABC):
    """Starts the trainer processes of an attempt whose execution.json is written."""

    name: ClassVar[str]
    takes: ClassVar[Sequence[str]] = ()
    """Which fields of LauncherOptions it takes; others are refused."""
    remote: ClassVar[bool] = False
    """Trains on other machines, whose GPUs cannot be asked from here and which it may wait for."""
    contained: bool = False
    """Trains in containers, which see nothing but what is mounted."""

    @property
    def forbidden_in_paths(self) -> str | None:
        """Signs that it cannot write into a script or a mount; control characters are among them
        anyway. None: it takes any path.
        """
        return None

    @classmethod
    def from_options(cls, options: LauncherOptions) -> Self:
        """The launcher with these options; those that it does not take are not given."""
        return cls()

    # Before a run

    def check_options(self, execution: Execution) -> None:
        """Refuse what cannot work on any machine, with `--print` too. Raises UsageError."""
        if execution.nodes > 1 and not self.remote:
            raise UsageError(
                f"--nodes {execution.nodes}: the {self.name} launcher trains on this host only; "
                "omit --nodes or use --launcher slurm"
            )

    def check(self, execution: Execution) -> None:
        """Refuse what cannot work here, before a run directory is made. Raises UsageError or
        DataError with the next step.
        """
        self.check_options(execution)
        if not self.contained:
            require_trackers(execution.trackers)

    @abstractmethod
    def commands(self, run: WorkDir, execution: Execution) -> list[str]:
        """What `launch` does, as shell commands to read and run by hand; starts nothing."""

    def check_paths(self, runs_dir: Path, roots: Roots, maths: Sequence[Math]) -> None:
        """Refuse a path of the runs that it could not write down, with `--print` too. Raises
        UsageError.
        """
        if self.forbidden_in_paths is not None:
            paths = host_paths(runs_dir, roots, maths)
            refuse_paths(paths, self.forbidden_in_paths, self.name)

    def inspection_environment(self, execution: Execution) -> str | None:
        """What `inspect` runs in, in words that change with its packages; None where that cannot be
        reached from here, and the trainer inspects the models when it starts.
        """
        return None if missing_packages() else installed_packages()

    def inspect(self, parts: ModelParts, execution: Execution) -> list[str]:
        """What is wrong with the models of a run, found by a process of the trainer's environment.
        Raises UsageError or DataError where that fails.
        """
        return inspect_here(parts)

    def convert(self, request: ConversionRequest, execution: Execution) -> ConversionReport:
        """Convert the pickled weights of a folder in a process of the trainer's environment.

        Raises UsageError or DataError where that fails, with nothing half-written left; see
        `exchange/convert.py`.
        """
        return convert_here(request)

    def exchange(self, request: ExchangeRequest, execution: Execution) -> ExchangeReport:
        """Import or export a checkpoint in a process of the trainer's environment. Raises
        UsageError or DataError where that fails, with nothing half-written left.
        """
        return exchange_here(request)

    def talk(self, request: TalkRequest, execution: Execution) -> NoReturn:
        """Become a process of the trainer's environment that answers in this terminal. Raises
        UsageError where it cannot be started.
        """
        talk_here(request, execution)

    # A run

    @abstractmethod
    def launch(self, run: WorkDir, execution: Execution) -> int:
        """Train the run's latest attempt and wait for it; returns an exit code and leaves nothing
        running.

        The first Ctrl-C or SIGTERM asks the trainer to stop at a checkpoint (exit code 75), the
        second kills it (130): see `wait_stoppable`. `note` what was started before waiting.
        """

    def note(self, run: WorkDir, **details: str | int) -> None:
        """Write the handle of the latest attempt: what `is_alive`, `kill` and `where` are given."""
        write_handle(ProcessHandle(run=run, launcher=self.name, host=this_host(), details=details))

    def arrays(self) -> "Arrays | None":
        """How it trains several runs at once; None: one after the other."""
        return None

    # A run that another driver started

    @abstractmethod
    def where(self, handle: ProcessHandle) -> str:
        """What it runs as, in words: `process 12 on host1`."""

    @abstractmethod
    def is_alive(self, handle: ProcessHandle) -> bool:
        """Whether it runs or waits to run. Raises UsageError or DataError where that cannot be
        found out.
        """

    @abstractmethod
    def kill(self, handle: ProcessHandle) -> None:
        """End it at once and wait until it is gone. Raises DataError where that fails."""

    def stop(self, handle: ProcessHandle, *, now: bool) -> str:
        """Ask it to stop at a checkpoint, or kill it: `now`, or before its first step, where there
        is nothing to save. Returns what was done, in words.
        """
        run = handle.run
        if not now and run.in_steps:
            run.stop_file.touch()
            return f"asked {self.where(handle)} to stop at a checkpoint"
        self.kill(handle)
        message = "killed by `densekit stop --now`"
        if not now:
            message = "stopped by `densekit stop` before the first step: nothing was to save"
        if run.status.state in UNDER_WAY:
            run.set_status("failed", message=message, exit_code=KILLED_CODE)
        return f"killed {self.where(handle)}" + ("" if now else " before its first step")

    # A host

    @classmethod
    def diagnose(cls, gpus: Sequence[Gpu], *, tiny: bool) -> list[Check]:
        """What `densekit doctor` says about it on this host, whose GPUs these are. `tiny`: only a
        tiny recipe is asked about, which trains on the CPU.
        """
        return []


@dataclass(eq=False, kw_only=True)
class Element:
    """One run of several that are launched together."""

    run: RunDir
    execution: Execution
    after: "Element | None"
    """The run that it starts from, if that is trained with the same command."""

    @property
    def name(self) -> str:
        """The recipe's."""
        return self.run.name


class Arrays(ABC):
    """How a launcher trains several runs at once, each after the one that it starts from."""

    @abstractmethod
    def commands(self, elements: Sequence[Element]) -> list[str]:
        """What `launch` does, as shell commands; starts nothing."""

    @abstractmethod
    def launch(self, elements: Sequence[Element]) -> int:
        """Train the latest attempts of all runs and wait for them; returns the exit code of the
        first that failed, else 0.

        One that fails keeps only those from training that start from it. When this raises, nothing
        is left running, but for LostContactError.
        """


def this_host() -> str:
    """The name under which launch.json knows this machine."""
    return socket.gethostname()
