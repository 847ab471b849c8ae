"""Several recipes with one command, as ablations need: one after the other, or as job arrays where
there is Slurm.

There, the runs that start from nothing are one array and those that start from them a second one,
which waits for the first. Stages that recipes share are trained once.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densekit.errors import DensekitError, UsageError
from densekit.launch.chain import (
    Stage,
    already_complete,
    begin,
    execution_of,
    locked,
    opened_anew,
    prepare,
    reproduce,
)
from densekit.launch.dry_run import Planned, show
from densekit.launch.launchers.base import INTERRUPTED_CODE, Launcher, settle, wait_stoppable
from densekit.launch.launchers.slurm.jobs import Follower, LostContactError, cancel, follow_jobs
from densekit.launch.launchers.slurm.launcher import Slurm
from densekit.launch.launchers.slurm.script import array_script, script
from densekit.launch.selection import Asked, Choice, choose
from densekit.recipes.load import load_recipe
from densekit.recipes.unsupported import refuse_waiting
from densekit.runs.layout import PREEMPTED_CODE, RunDir, open_run, run_path
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.hardware import Hardware
from densekit.spec.math import RunMath
from densekit.spec.roots import Roots


@dataclass(eq=False)
class Member:
    """One run of a sweep."""

    run: RunDir
    execution: Execution
    after: "Member | None"
    """The run that it starts from, if that is trained in this sweep too."""
    job: str = ""

    @property
    def name(self) -> str:
        """The recipe's."""
        return self.run.name


def choose_for_all(names: Sequence[str], overrides: Sequence[str], asked: Asked) -> Choice:
    """One choice for several recipes. Raises UsageError when they would get different ones, or one
    waits for a part.
    """
    recipes = {name: load_recipe(name, overrides) for name in names}
    for recipe in recipes.values():
        refuse_waiting(recipe)
    choices = {name: choose(recipe, asked) for name, recipe in recipes.items()}
    first = next(iter(choices.values()))
    for name, choice in choices.items():
        ours, theirs = (
            (part.launcher.name, part.device, part.gpus, part.nodes, part.hardware)
            for part in (choice, first)
        )
        if ours != theirs:
            raise UsageError(
                f"{name} would be trained by other means than {names[0]} ({_means(choice)}; {_means(first)}): run them "
                "apart, or say --launcher, --device, --gpu and --gpus"
            )
    return first


def _means(choice: Choice) -> str:
    kind = choice.hardware.name if choice.hardware else choice.device
    nodes = f" on {choice.nodes} nodes" if choice.nodes > 1 else ""
    return f"{choice.launcher.name}, {choice.gpus} x {kind}{nodes}"


def sweep(
    names: Sequence[str],
    *,
    overrides: Sequence[str],
    runs_dir: Path,
    roots: Roots,
    request: ExecutionRequest,
    hardware: Hardware | None = None,
    launcher: Launcher,
    force: bool = False,
    announce: str | None = None,
) -> int:
    """Run recipes, each after the stage it needs; returns the exit code of the first that failed,
    else 0.

    All of them are checked before the first run directory is made. One that fails does not keep the
    others from training, Ctrl-C does.
    """
    common: dict[str, Any] = {
        "overrides": overrides,
        "roots": roots,
        "request": request,
        "hardware": hardware,
        "launcher": launcher,
    }
    if len(names) > 1:
        chains = [prepare(name, **common) for name in names]
        if isinstance(launcher, Slurm):
            return _as_arrays(chains, launcher, runs_dir, roots, force=force, announce=announce)
    first_code = 0
    for name in dict.fromkeys(names):
        code = reproduce(name, runs_dir=runs_dir, force=force, announce=announce, **common)
        if code in (PREEMPTED_CODE, INTERRUPTED_CODE):
            return code
        first_code, announce = first_code or code, None
    return first_code


def show_sweep(
    names: Sequence[str],
    *,
    overrides: Sequence[str],
    runs_dir: Path,
    roots: Roots,
    request: ExecutionRequest,
    hardware: Hardware | None = None,
    launcher: Launcher,
) -> list[str]:
    """What --print shows: the commands of every recipe, or the scripts of every element and of the
    arrays.
    """
    common: dict[str, Any] = {
        "overrides": overrides,
        "roots": roots,
        "request": request,
        "hardware": hardware,
        "launcher": launcher,
    }
    if len(names) == 1 or not isinstance(launcher, Slurm):
        return [
            line
            for name in dict.fromkeys(names)
            for line in show(name, runs_dir=runs_dir, **common)
        ]
    chains = [prepare(name, **common) for name in names]
    first, second = _levels(chains, roots, lambda math: Planned(run_path(runs_dir, math), math))
    first, dependency = _in_order(first, second)
    lines: list[str] = []
    for members, waits_for in ((first, None), (second, f"{dependency}:ID-OF-THE-FIRST")):
        for member in members:
            lines += [f"# {member.run.attempt / 'job.sbatch'}:"]
            lines += [script(member.run, member.execution, launcher.batch)]
        if members:
            lines.append(
                f"sbatch <<'END'\n{array_script(_pairs(members), launcher.batch, waits_for)}END"
            )
    return lines


def _as_arrays(
    chains: Sequence[list[Stage]],
    slurm: Slurm,
    runs_dir: Path,
    roots: Roots,
    *,
    force: bool,
    announce: str | None,
) -> int:
    asked_for = [chain[-1].math for chain in chains]
    with ExitStack() as locks:

        def opened(math: RunMath) -> RunDir:
            run = open_run(runs_dir, math)
            locks.enter_context(locked(run))
            return opened_anew(run) if force and math in asked_for else run

        levels = _levels(chains, roots, opened)
        if announce:
            print(announce, flush=True)
        first, second = (
            [member for member in level if not already_complete(member.run)] for level in levels
        )
        first, dependency = _in_order(first, second)
        members = [*first, *second]
        for member in members:
            begin(member.run, member.execution, slurm)
        try:
            _submit(first, slurm, None)
            _submit(
                second, slurm, f"{dependency}:{first[0].job.partition('_')[0]}" if first else None
            )
            return _follow(members, slurm, together=dependency == "afterok")
        except LostContactError:
            raise  # the jobs go on
        except DensekitError as error:
            cancel(*(member.job for member in members if member.job))
            for member in members:
                if member.run.status.state in ("created", "running"):
                    member.run.set_status("failed", message=str(error), exit_code=error.exit_code)
            raise


def _levels(
    chains: Sequence[list[Stage]],
    roots: Roots,
    opened: Callable[[RunMath], RunDir],
) -> list[list[Member]]:
    """The distinct runs of all chains: those that start from nothing, and those that start from one
    of them.
    """
    levels: list[dict[str, Member]] = [{}, {}]
    for chain in chains:
        previous: Member | None = None
        for level, stage in zip(levels, chain, strict=False):
            name = stage.math.sha256
            if name not in level:
                execution = execution_of(stage.plan, roots, previous.run if previous else None)
                level[name] = Member(opened(stage.math), execution, previous)
            previous = level[name]
    return [[*level.values()] for level in levels]


def _in_order(first: Sequence[Member], second: Sequence[Member]) -> tuple[list[Member], str]:
    """The first array in the order of the second, if each of that has a run of its own to wait for;
    how it waits.

    aftercorr: element by element. afterok: the second array waits for the whole first one.
    """
    awaited = [member.after for member in second if member.after in first]
    if len(awaited) < len(second) or any(awaited.count(member) > 1 for member in awaited):
        return list(first), "afterok"
    leading = [member for member in awaited if member]
    return [*leading, *(member for member in first if member not in leading)], "aftercorr"


def _pairs(members: Sequence[Member]) -> list[tuple[RunDir, Execution]]:
    return [(member.run, member.execution) for member in members]


def _submit(members: Sequence[Member], slurm: Slurm, dependency: str | None) -> None:
    if not members:
        return
    jobs = slurm.submit_array(_pairs(members), dependency)
    for member, job in zip(members, jobs, strict=True):
        member.job = job
        print(
            f"{member.name}: Slurm job {job}; `densekit tail {member.run.path}` follows it too",
            flush=True,
        )


def _follow(members: Sequence[Member], slurm: Slurm, *, together: bool) -> int:
    """Wait for all jobs; `together`: the second array waits for all of the first."""
    followers = {
        member.job: Follower(member.run, member.job, slurm.queue_minutes, f"{member.name}: ")
        for member in members
    }

    def blocked(member: Member) -> str | None:
        """Why a run that waits for others will never start."""
        awaited = [
            part
            for part in members
            if part is member.after or (together and member.after and not part.after)
        ]
        for part in awaited:
            if followers[part.job].code is not None and not part.run.complete:
                return f"{part.name}, which its job waits for, did not complete"
        return None

    def take_back_blocked() -> None:
        for member in members:
            follower = followers[member.job]
            if (
                follower.code is None
                and not member.run.stop_file.exists()
                and (why := blocked(member))
            ):
                follower.give_up(why)

    def wait() -> int:
        follow_jobs([*followers.values()], take_back_blocked)
        return 0

    runs = [member.run for member in members]
    ended = wait_stoppable(*runs, wait=wait, end=lambda: cancel(*followers))
    codes = []
    for member in members:
        follower = followers[member.job]
        never_began = member.run.status.state == "created"
        reason = (blocked(member) if never_began else None) or follower.reason
        codes.append(settle(member.run, ended if follower.code is None else follower.code, reason))
    return next((code for code in codes if code), 0)
