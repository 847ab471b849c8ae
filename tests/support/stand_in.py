"""`densekit` with a trainer that needs no torch: its steps take no time, its figures are always the
same, and it waits where a test looks at the screen.

    python -m tests.support.stand_in run tiny_stage1
"""

from densekit import cli
from densekit.launch.launchers import local
from tests.support.launching import trainer

STEPS, FIRST_STOP, SECOND_STOP = 24, 10, 16

SCRIPT = f"""
attempt = json.loads((path / "status.json").read_text())["attempt"]
execution = path / "attempts" / f"{{attempt:04d}}" / "execution.json"
put("certificate.json", json.dumps({{"steps": {STEPS}}}))
def step(number, seconds):
    line = {{"step": number, "loss": 4 - number / 10, "lr": 1e-3, "seconds": seconds}}
    line |= {{"samples": 16, "tokens": 4096, "mfu": 0.412, "peak_memory_gib": 61.25}}
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\\n")
def took(seconds):  # as if the steps had taken their time since the attempt was opened
    when = execution.stat().st_mtime + seconds
    os.utime(path / "metrics.jsonl", (when, when))
def wait(name):
    end = time.monotonic() + 120
    while not (path / name).exists() and time.monotonic() < end:
        time.sleep(0.02)
status("running")
if attempt == 1:
    for number in (1, 2, 3):
        print(f"/lib/some.py:{{number}}: FutureWarning: `old` is deprecated", file=sys.stderr)
        print("  old()", file=sys.stderr, flush=True)
    for number in range(1, {FIRST_STOP} + 1):
        step(number, 30.0)
    took(300.0)
    print("mine  1/{STEPS}  4%  eta 1:00  loss 3.9", flush=True)
    wait("stop")
    status("preempted", "stopped after step {FIRST_STOP}", 75)
    sys.exit(75)
print("mine: resumed from step {FIRST_STOP}", flush=True)
for number in range({FIRST_STOP} + 1, {SECOND_STOP} + 1):
    step(number, 3.0)
took(18.0)
wait("go")
for number in range({SECOND_STOP} + 1, {STEPS} + 1):
    step(number, 3.0)
print("{STEPS} steps, 384 samples", flush=True)
status("complete")
"""


if __name__ == "__main__":
    local.command = trainer(SCRIPT)
    cli.main()
