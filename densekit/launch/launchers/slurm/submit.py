"""Submitting to Slurm: the id of the job, or one sentence that says why Slurm refuses it."""

import os
import subprocess
from collections.abc import Mapping

from densekit.errors import UsageError

CONFIGURATION = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_TIME_FORMAT")
OWN_VARIABLES = (
    *("SBATCH_ARRAY_INX", "SBATCH_CLUSTERS", "SBATCH_ERROR", "SBATCH_OUTPUT", "SBATCH_WAIT"),
    *("SBATCH_GPUS", "SBATCH_GPUS_PER_NODE", "SBATCH_GPUS_PER_TASK", "SBATCH_NTASKS_PER_GPU"),
    *("SBATCH_OPEN_MODE", "SBATCH_SIGNAL"),
)
"""What stands in the environment for options that the script sets and relies on: sbatch would take
them instead.
"""
NO_SUCH_NODES = ("node configuration is not available", "More processors requested", "node count")


def sbatch(*arguments: str, script: str | None = None) -> str:
    """Submit a file, or a `script` on standard input; returns the job's id. Raises UsageError."""
    command = ["sbatch", "--parsable", *arguments]
    done = subprocess.run(
        command,
        input=script,
        capture_output=True,
        text=True,
        check=False,
        env=without_outer_job(os.environ),
    )
    if done.returncode != 0:
        raise UsageError(refusal(done.stderr))
    job = done.stdout.strip().split(";")[0]
    if not job.isdigit():
        raise UsageError(
            f"sbatch printed `{done.stdout.strip()}` instead of a job id; remove the --sbatch "
            "option that causes it"
        )
    return job


def without_outer_job(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that sbatch may see: those of a job in which this driver runs would reach the
    new one, and its restart count, memory and array index are not the new one's.
    """
    return {
        name: value
        for name, value in variables.items()
        if (not name.startswith("SLURM_") or name in CONFIGURATION) and name not in OWN_VARIABLES
    }


def partitions() -> list[str]:
    """The partitions there are; none where sinfo cannot be asked."""
    command = ["sinfo", "--noheader", "--format=%R"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return sorted(set(done.stdout.split())) if done.returncode == 0 else []


def check_partition(asked: str) -> None:
    """Raises UsageError for a partition, or one of a list with commas, that does not exist."""
    known = partitions()
    if unknown := [name for name in asked.split(",") if known and name not in known]:
        raise UsageError(
            f"--sbatch partition={asked}: no partition is named {unknown[0]}; there are "
            f"{', '.join(known)}"
        )


def refusal(stderr: str) -> str:
    """What sbatch's error means, with the option that mends it."""
    lines = stderr.strip().splitlines() or ["no reason given"]
    line = next((line for line in lines if "rror" in line), lines[0])
    for prefix in ("sbatch: ", "error: ", "Batch job submission failed: "):
        line = line.removeprefix(prefix)
    if any(part in line for part in NO_SUCH_NODES):
        return (
            f"Slurm has no such nodes ({line}): use fewer --nodes or --gpus, or another "
            "--sbatch partition=..."
        )
    if "emory" in line:
        return (
            f"Slurm refuses the job ({line}): the plan's host RAM is asked for; ask for another "
            "amount with --sbatch mem=..., or mem=0 for all that a node has"
        )
    if "account" in line or "QOS" in line:
        return (
            f"Slurm refuses the job ({line}): give yours with --sbatch account=... or "
            "--sbatch qos=..."
        )
    if "partition" in line:
        return (
            f"Slurm refuses the job ({line}): `sinfo` lists the partitions, "
            "--sbatch partition=... names one"
        )
    return f"Slurm refuses the job: {line}"
