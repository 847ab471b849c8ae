"""Submitting to Slurm: the id of the job, or one sentence that says why Slurm refuses it."""

import subprocess

from densekit.errors import UsageError

NO_SUCH_NODES = ("node configuration is not available", "More processors requested", "node count")


def sbatch(*arguments: str, script: str | None = None) -> str:
    """Submit a file, or a `script` on standard input; returns the job's id. Raises UsageError."""
    command = ["sbatch", "--parsable", *arguments]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UsageError(refusal(done.stderr))
    job = done.stdout.strip().split(";")[0]
    if not job.isdigit():
        raise UsageError(
            f"sbatch printed `{done.stdout.strip()}` instead of a job id; remove the --sbatch "
            "option that causes it"
        )
    return job


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
