"""The bash scripts that Slurm runs, filled in with str.format: of a job, and of a job array."""

JOB = """\
#!/bin/bash
{options}
set -u
run={run}
job=$SLURM_JOB_ID
if [ -n "${{SLURM_ARRAY_JOB_ID:-}}" ]; then  # an array's id alone means all of its elements
    job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
fi
{exports}
unset SLURM_EXPORT_ENV  # with --export=NONE srun would leave these variables out
if [ -n "${{SLURM_CPUS_PER_TASK:-}}" ]; then  # srun does not take it over by itself
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi

# Slurm will take the nodes away (time limit, preemption): stop at a checkpoint, then requeue.
taken=
trap 'taken=1; touch "$run/stop"' USR1 TERM

# Rendezvous of all nodes: the first node's address as Slurm knows it.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
head=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')
port=$((20000 + SLURM_JOB_ID % 20000))

if grep -q '"state": "complete"' "$run/status.json"; then
    exit 0  # Slurm started the job again after the run was complete
fi

# Requeued: the attempt before this one is over.
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

# Without `taken`, a stop file means that the user asked: the job ends. Without either, Slurm
# signalled the steps alone. A cancelled job is no longer running: it is not requeued.
if grep -q '"state": "preempted"' "$run/status.json" \\
    && {{ [ -n "$taken" ] || [ ! -e "$run/stop" ]; }} \\
    && scontrol --oneliner show job "$job" | grep -q ' JobState=RUNNING '; then
    echo "preempted: requeued"
    trap '' USR1 TERM  # Slurm ends this script now: it must not ask for another stop
    rm -f "$run/stop"  # it was this script's; from here on only the user makes one
    scontrol requeue "$job"
    sleep 60
fi
# Under torchrun a stopped trainer exits with 0; jobs that wait for this one must not start.
if [ "$code" -eq 0 ] && ! grep -q '"state": "complete"' "$run/status.json"; then
    code=1
    if grep -q '"state": "preempted"' "$run/status.json"; then
        code={preempted}
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
exec bash "$attempt/job.sbatch" \\
    >> "$attempt/slurm-${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID.out" 2>&1
"""
