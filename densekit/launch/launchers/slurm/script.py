"""The batch script of a Slurm job: one task per node, each starting its share of the trainer
through torchrun.

Slurm starts the script again when a node failed, or when the script requeued the job because it was
preempted. It then opens the next attempt of the run, which resumes from the newest checkpoint.
"""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from densekit.errors import PREEMPTED_CODE, UsageError
from densekit.launch.launchers.base import Element
from densekit.launch.launchers.mounts import mounts
from densekit.launch.launchers.paths import printable
from densekit.launch.launchers.slurm.templates import ARRAY, JOB
from densekit.launch.launchers.trainer_command import (
    job_name,
    passed_on,
    trainer_environment,
)
from densekit.runs.environment import IMAGE_VARIABLE
from densekit.runs.layout import WorkDir
from densekit.spec.execution import Execution
from densekit.spec.types import ContainerRuntime

WARNING_SECONDS = 300
"""Slurm signals a job so long before its time limit; a step and a checkpoint have to fit in."""
JOIN_SECONDS = 600
"""Rendezvous fails, and ends the job, when a node has not joined by then."""
CPUS_PER_GPU = 4
"""Requested unless --sbatch cpus-per-task=... says otherwise: a rank and its data workers."""
OWN_OPTIONS = ("array", "clusters", "error", "output", "test-only", "wait", "wrap")
"""Options of sbatch that the launcher needs for itself, or that would take the job out of its
sight.
"""
STARTS = re.compile("nodes|ntasks(-per-.*)?")
"""Options that say how many processes start: the plan says it, and the script has one task a node.
"""
SIGNAL = re.compile(r"(R?B|BR):(SIG)?(USR1|TERM)(@[0-9]+)?")
"""Signals that the script itself gets, and answers with a checkpoint."""
MEMORY_OPTIONS = {"mem", "mem-per-cpu", "mem-per-gpu"}
"""Of which sbatch takes one."""
OPTION_NAME = re.compile("[a-z][a-z0-9-]*")
QUOTES = "\"'\\"
"""What a line `#SBATCH --name="value"` cannot hold, besides a line break."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a cluster needs to be told beyond the plan."""

    runtime: ContainerRuntime = "none"
    image: str | None = None
    """pyxis: `registry#name:tag` or a .sqsh file; apptainer: a .sif file or docker:// address."""
    options: Mapping[str, str | None] = field(default_factory=dict)
    """Options of sbatch by long name, without dashes; they replace those of the script. None: a
    bare switch.
    """


def parse_options(words: Sequence[str], source: str = "--sbatch") -> dict[str, str | None]:
    """`partition=gpu`, `exclusive` -> options; UsageError for what sbatch could not take, which
    begins with `source`.
    """
    options: dict[str, str | None] = {}
    for word in words:
        name, separator, value = word.removeprefix("--").partition("=")
        if not OPTION_NAME.fullmatch(name) or printable(word) != word or set(value) & set(QUOTES):
            raise UsageError(
                f"{source} '{printable(word)}': give a long option of sbatch on one line without "
                "quotes, as in partition=gpu"
            )
        if name in OWN_OPTIONS:
            raise UsageError(
                f"{source} {name}: omit it; densekit sets it itself, or could not follow the job"
            )
        if STARTS.fullmatch(name):
            raise UsageError(
                f"{source} {name}: omit it; `--nodes` and `--gpus` of densekit say how many "
                "processes start, one task a node"
            )
        if name == "signal" and not SIGNAL.fullmatch(value):
            raise UsageError(
                f"{source} signal={value}: the job saves a checkpoint when the script itself gets "
                "USR1 or TERM, so give B:USR1@SECONDS"
            )
        options[name] = value if separator else None
    return options


def script(run: WorkDir, execution: Execution, batch: Batch) -> str:
    """The batch script that trains a run."""
    variables = {**passed_on(), **trainer_environment(execution)}
    if execution.device == "cuda":  # the plan counted the CPUs of the login node
        variables["OMP_NUM_THREADS"] = str(CPUS_PER_GPU)
    if batch.image:
        variables[IMAGE_VARIABLE] = batch.image
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
    return JOB.format(
        options=_lines(_options(run, execution, batch)),
        run=shlex.quote(str(run.path.resolve())),
        exports=exports,
        alone=f"srun --nodes=1 --ntasks=1{_inside(run, execution, batch, variables)}",
        everywhere=f"srun --kill-on-bad-exit=1{_inside(run, execution, batch, variables)}",
        python=shlex.quote(python(batch)),
        trainer=_trainer(run, execution),
        preempted=PREEMPTED_CODE,
    )


def piped(text: str) -> str:
    """The shell command that submits a script; no line of it ends the text early."""
    end = "END"
    while end in text.splitlines():
        end += "_"
    return f"sbatch <<'{end}'\n{text}{end}"


def write_script(run: WorkDir, execution: Execution, batch: Batch) -> Path:
    """Write the batch script into the attempt, and make the cache: a container that mounts a folder
    which is missing does not start.
    """
    execution.roots.cache.mkdir(parents=True, exist_ok=True)
    path = run.attempt.resolve() / "job.sbatch"
    path.write_text(script(run, execution, batch), encoding="utf-8")
    return path


def array_script(elements: Sequence[Element], batch: Batch, dependency: str | None = None) -> str:
    """The script of a job array: each element is the job of one run, whose script lies in its
    attempt. `dependency`: what the array waits for, as sbatch's option of that name has it.
    """
    most_threads = max(elements, key=lambda element: element.execution.threads)
    waits = {"dependency": dependency} if dependency else {}
    options = _options(
        elements[0].run,
        most_threads.execution,
        replace(batch, options={**batch.options, **waits}),
    )
    options |= {"array": f"0-{len(elements) - 1}", "output": "/dev/null"}
    options["job-name"] = f"densekit-{len(elements)}-runs"
    if dependency:
        options["kill-on-invalid-dep"] = "yes"
    return ARRAY.format(
        options=_lines(options),
        attempts="\n".join(shlex.quote(str(element.run.attempt.resolve())) for element in elements),
    )


def python(batch: Batch) -> str:
    """The interpreter of the trainer: the image's, or without one that of this driver, which all
    nodes must see.
    """
    return sys.executable if batch.runtime == "none" else "python"


def _options(run: WorkDir, execution: Execution, batch: Batch) -> dict[str, str | None]:
    each = execution.per_node
    options: dict[str, str | None] = {
        "job-name": job_name(run),
        "nodes": str(execution.nodes),
        "ntasks-per-node": "1",
        "output": f"{_escaped(run.attempt.resolve())}/slurm-%j.out",
        "open-mode": "append",
        "requeue": None,
        "signal": f"B:USR1@{WARNING_SECONDS}",
    }
    if execution.device == "cuda":
        options["gpus-per-node"] = str(each)
        options["cpus-per-task"] = str(each * CPUS_PER_GPU)
        if execution.host_ram_gib is not None and not batch.options.keys() & MEMORY_OPTIONS:
            options["mem"] = f"{execution.host_ram_gib}G"
    else:
        options["cpus-per-task"] = str(each * execution.threads)
    return {**options, **batch.options}


def _lines(options: Mapping[str, str | None]) -> str:
    """As sbatch reads them."""
    return "\n".join(
        f"#SBATCH --{name}" + ("" if value is None else f"={_quoted(value)}")
        for name, value in options.items()
    )


def _escaped(path: Path) -> str:
    """Slurm fills in what follows a %."""
    return str(path).replace("%", "%%")


def _quoted(value: str) -> str:
    return f'"{value}"' if any(sign in value for sign in " \t#;") else value


def _inside(run: WorkDir, execution: Execution, batch: Batch, variables: Mapping[str, str]) -> str:
    """What stands between `srun` and the interpreter: nothing, or the container with everything at
    its own path.
    """
    if batch.runtime == "none":
        return ""
    assert batch.image is not None
    binds = {mount.path: mount.read_only for mount in mounts(run, execution)}
    if batch.runtime == "pyxis":
        listed = ",".join(f"{path}:{path}{':ro' if only else ''}" for path, only in binds.items())
        workdir = run.path.resolve()
        words = [
            f"--container-image={batch.image}",
            f"--container-mounts={listed}",
            f"--container-workdir={workdir}",
        ]
        return " " + shlex.join([*words, f"--container-env={','.join(variables)}"])
    # A .sif is read-only and gives no rights by itself; --no-privs takes root's, too.
    words = ["apptainer", "exec", "--cleanenv", "--no-privs", "--pwd", str(run.path.resolve())]
    words += ["--nv"] * (execution.device == "cuda")
    for path, only in binds.items():
        words += ["--bind", f"{path}:{path}{':ro' if only else ''}"]
    # The environment stays outside, but for what APPTAINERENV_ names: the GPUs are those that Slurm
    # gave to this task.
    exports = [f'APPTAINERENV_{name}="${name}"' for name in variables]
    gpus = '${CUDA_VISIBLE_DEVICES:+"APPTAINERENV_CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES"}'
    inside = f'export {" ".join([*exports, gpus])}; exec {shlex.join([*words, batch.image])} "$@"'
    return f" sh -c {shlex.quote(inside)} sh"


def _trainer(run: WorkDir, execution: Execution) -> str:
    trainer = f'-m densekit {run.verb} "$run"'
    if not execution.is_distributed:
        return trainer
    nodes = execution.nodes
    each = execution.per_node
    torchrun = "-m densekit.train.torchrun"
    if nodes == 1:
        return f"{torchrun} --standalone --nproc-per-node {each} {trainer}"
    return (
        f"{torchrun} --nnodes {nodes} --nproc-per-node {each} --rdzv-backend c10d "
        '--rdzv-id "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" --rdzv-endpoint "$head:$port" '
        f"--rdzv-conf join_timeout={JOIN_SECONDS},read_timeout={JOIN_SECONDS} {trainer}"
    )
