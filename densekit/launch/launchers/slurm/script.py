"""The batch script of a Slurm job: one task per node, each starting its share of the trainer
through torchrun.

Slurm starts the script again when a node failed, or when the script asked for it because the job
was preempted. It then opens the next attempt of the run, which goes on from the newest checkpoint.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from densekit.errors import UsageError
from densekit.launch.launchers.base import passed_on, trainer_environment
from densekit.launch.launchers.docker.container import container_name, mounts
from densekit.runs.environment import IMAGE_VARIABLE
from densekit.runs.layout import RunDir
from densekit.spec.execution import Execution

Runtime = Literal["none", "pyxis", "apptainer"]
"""What containers the cluster has: none (this Python on every node), pyxis with enroot, or
apptainer.
"""
WARNING_SECONDS = 300
"""Slurm tells a job so long before its time is over; a step and a checkpoint have to fit in."""
JOIN_SECONDS = 600
"""A node that has not joined the others by then ends the job."""
CPUS_PER_GPU = 4
"""Asked for where --sbatch cpus-per-task=... does not say it: a trainer process and its data
workers.
"""
OWN_OPTIONS = ("array", "clusters", "error", "output", "test-only", "wait", "wrap")
"""Options of sbatch that the launcher needs for itself, or that would take the job out of its
sight.
"""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a cluster needs to be told beyond the plan."""

    runtime: Runtime = "none"
    image: str | None = None
    """pyxis: `registry#name:tag` or a .sqsh file; apptainer: a .sif file or docker:// address."""
    options: Mapping[str, str | None] = field(default_factory=dict)
    """Options of sbatch by long name, without dashes; they replace those of the script. None: a
    bare switch.
    """


def parse_options(words: Sequence[str]) -> dict[str, str | None]:
    """`partition=gpu`, `exclusive` -> options; UsageError for what sbatch could not take."""
    options: dict[str, str | None] = {}
    for word in words:
        name, separator, value = word.removeprefix("--").partition("=")
        if not name or any(sign in word for sign in "\n\r") or " " in name:
            raise UsageError(
                f"--sbatch {word!r}: write a long option of sbatch, as in --sbatch partition=gpu"
            )
        if name in OWN_OPTIONS:
            raise UsageError(
                f"--sbatch {name}: densekit sets this itself, or could not follow the job"
            )
        options[name] = value if separator else None
    return options


def script(run: RunDir, execution: Execution, batch: Batch) -> str:
    """The batch script that trains a run."""
    variables = {**passed_on(), **trainer_environment(execution)}
    if execution.device == "cuda":
        variables["OMP_NUM_THREADS"] = str(
            CPUS_PER_GPU
        )  # the plan counted the processors of the login node
    if batch.image:
        variables[IMAGE_VARIABLE] = batch.image
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
    return TEMPLATE.format(
        options=_lines(_options(run, execution, batch)),
        run=shlex.quote(str(run.path.resolve())),
        exports=exports,
        alone=f"srun --nodes=1 --ntasks=1{_inside(run, execution, batch, variables)}",
        everywhere=f"srun --kill-on-bad-exit=1{_inside(run, execution, batch, variables)}",
        python=shlex.quote(python(batch)),
        trainer=_trainer(execution),
    )


def array_script(
    members: Sequence[tuple[RunDir, Execution]], batch: Batch, dependency: str | None = None
) -> str:
    """The script of a job array: each element is the job of one run, whose script lies in its
    attempt.
    """
    (run, _), execution = (
        members[0],
        max((part for _, part in members), key=lambda part: part.threads),
    )
    first = replace(
        batch, options={**batch.options, "dependency": dependency} if dependency else batch.options
    )
    options = _options(run, execution, first) | {
        "array": f"0-{len(members) - 1}",
        "output": "/dev/null",
    }
    options["job-name"] = f"densekit-{len(members)}-runs"
    if dependency:
        options["kill-on-invalid-dep"] = "yes"
    return ARRAY.format(
        options=_lines(options),
        attempts="\n".join(shlex.quote(str(run.attempt.resolve())) for run, _ in members),
    )


def python(batch: Batch) -> str:
    """The interpreter of the trainer: the image's, or without one that of this driver, which all
    nodes must see.
    """
    return sys.executable if batch.runtime == "none" else "python"


def _options(run: RunDir, execution: Execution, batch: Batch) -> dict[str, str | None]:
    each = execution.world_size // execution.nodes
    options: dict[str, str | None] = {
        "job-name": container_name(run),
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


def _inside(run: RunDir, execution: Execution, batch: Batch, variables: Mapping[str, str]) -> str:
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
    words = ["apptainer", "exec", "--cleanenv", "--pwd", str(run.path.resolve())]
    words += ["--nv"] * (execution.device == "cuda")
    for path, only in binds.items():
        words += ["--bind", f"{path}:{path}{':ro' if only else ''}"]
    # The environment stays outside, but for what APPTAINERENV_ names: the GPUs are those that Slurm
    # gave to this task.
    exports = [f'APPTAINERENV_{name}="${name}"' for name in variables]
    gpus = '${CUDA_VISIBLE_DEVICES:+"APPTAINERENV_CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES"}'
    inside = f'export {" ".join([*exports, gpus])}; exec {shlex.join([*words, batch.image])} "$@"'
    return f" sh -c {shlex.quote(inside)} sh"


def _trainer(execution: Execution) -> str:
    if not execution.is_distributed:
        return '-m densekit train "$run"'
    nodes = execution.nodes
    each = execution.world_size // nodes
    if nodes == 1:
        return f'-m densekit.train.torchrun --standalone --nproc-per-node {each} -m densekit train "$run"'
    return (
        f"-m densekit.train.torchrun --nnodes {nodes} --nproc-per-node {each} "
        '--rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" --rdzv-endpoint "$head:$port" '
        f'--rdzv-conf join_timeout={JOIN_SECONDS},read_timeout={JOIN_SECONDS} -m densekit train "$run"'
    )


TEMPLATE = """\
#!/bin/bash
{options}
set -u
run={run}
job=$SLURM_JOB_ID
if [ -n "${{SLURM_ARRAY_JOB_ID:-}}" ]; then  # an array's id alone means all of its elements
    job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
fi
{exports}
if [ -n "${{SLURM_CPUS_PER_TASK:-}}" ]; then  # srun does not take it over by itself
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi

# Slurm will take the nodes away (time is over, preemption): stop at a checkpoint, then queue again.
taken=
trap 'taken=1; touch "$run/stop"' USR1 TERM

# Where the processes of all nodes meet: Slurm's own address of the first node.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
head=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')
port=$((20000 + SLURM_JOB_ID % 20000))

if grep -q '"state": "complete"' "$run/status.json"; then
    exit 0  # started again behind its end
fi

# Queued again: the attempt before this one is over.
if [ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ]; then
    {alone} {python} -m densekit attempt "$run" || exit
fi

{everywhere} {python} {trainer} &
step=$!
wait "$step"
code=$?
while kill -0 "$step" 2>/dev/null; do  # a signal ends `wait` before the step ends
    wait "$step"
    code=$?
done

# Without `taken`, a stop file means that the user asked: the job ends. Else Slurm told the steps alone. A job that
# was cancelled is not running any more: it stays away.
if grep -q '"state": "preempted"' "$run/status.json" && {{ [ -n "$taken" ] || [ ! -e "$run/stop" ]; }} \\
    && scontrol --oneliner show job "$job" | grep -q ' JobState=RUNNING '; then
    echo "preempted: queued again"
    trap '' USR1 TERM  # Slurm ends this script, which asks for nothing any more
    rm -f "$run/stop"  # it was this script's; from here on it is the user's word
    scontrol requeue "$job"
    sleep 60
fi
# A trainer that several processes share ends with 0 when it was stopped; jobs that wait for this one must not start.
if [ "$code" -eq 0 ] && ! grep -q '"state": "complete"' "$run/status.json"; then
    code=1
    if grep -q '"state": "preempted"' "$run/status.json"; then
        code=75
    fi
fi
exit "$code"
"""
ARRAY = """\
#!/bin/bash
{options}
# Each element is the job of one run, with script and output in that run's attempt.
attempts=(
{attempts}
)
attempt=${{attempts[$SLURM_ARRAY_TASK_ID]}}
exec bash "$attempt/job.sbatch" >> "$attempt/slurm-${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID.out" 2>&1
"""
