"""`densekit replay`: a complete run trained once more with the same execution, and compared with
what it recorded.
"""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from densekit.audit.diff.compare import Comparison, check_tolerance, compare_runs
from densekit.audit.model_files import PARTS
from densekit.audit.run_reader import read_run
from densekit.audit.verify.verify import verify_run
from densekit.errors import DataError, UsageError
from densekit.files.json_files import optional_object
from densekit.launch.chain import locked, start
from densekit.launch.launchers.local import Local
from densekit.runs.layout import RunDir, open_replay
from densekit.spec.execution import Execution
from densekit.spec.math import MADE_ASSETS, Math

TOLERANCE = 1e-5
INPUTS = (*PARTS, "annotations", "connector")
SAME_BITS = (
    "device",
    "dtype",
    "attention",
    "world_size",
    "zero_stage",
    "micro_batch_size",
    "tokens_per_micro_batch",
    "threads",
    "activation_checkpointing",
    "deterministic",
)
"""Fields of Execution that must be equal for two attempts to be bitwise equal."""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """How near a replay has to come: `tolerance` 0 is bitwise; `reason` says in words why."""

    tolerance: float
    reason: str

    def met(self, found: Comparison) -> bool:
        """Whether a comparison found what was expected."""
        return found.equal and (self.tolerance > 0 or found.first_bit_difference is None)


def replay(
    path: Path,
    *,
    runs_dir: Path | None = None,
    tolerance: float | None = None,
    deterministic: bool = False,
) -> int:
    """Train the run at `path` again, beside it (or in `runs_dir`) as `<its folder>.replayN`, and
    compare the two.

    The replay has the same math and the execution of the run's last attempt; `deterministic` adds
    deterministic kernels. A replay that was stopped resumes. Without a `tolerance` it has to be
    bitwise equal where that can be expected (see `expect`), else within 1e-5. Returns 0 when it
    is, 1 when the two diverge, the trainer's exit code when training fails.

    Raises DataError when `path` is no run directory, is damaged, or what it was trained from
    changed or is gone; UsageError when it is not complete.
    """
    check_tolerance(tolerance or 0.0)
    _check_replayable(path)
    original = RunDir(path)
    executions = _executions(original)
    execution = executions[-1].model_copy(
        update={
            "deterministic": deterministic or executions[-1].deterministic,
            "from_checkpoint": None,
            "trackers": (),
        }
    )
    Local().check(execution)
    place = path.resolve()
    run = open_replay(runs_dir or place.parent, place.name, original.math)
    with locked(run):
        code = 0 if run.complete else start(run, execution)
    if code != 0:
        print(
            f"{run.path}: `densekit replay {shlex.quote(str(path))}` resumes it",
            file=sys.stderr,
            flush=True,
        )
        return code
    expected = expect([*executions, *_executions(run)], tolerance)
    found = compare_runs(path, run.path, tolerance=expected.tolerance)
    print("\n".join([*found.report(), *_verdict(found, expected)]))
    return 0 if expected.met(found) else 1


def expect(executions: Sequence[Execution], tolerance: float | None) -> Expectation:
    """What attempts with these executions promise: bits, when all are the same and, on a GPU,
    deterministic.

    `executions` are those of a run's attempts and of its replay's. A `tolerance` that was asked for
    replaces the rule.
    """
    if tolerance is not None:
        return Expectation(tolerance=tolerance, reason="as --tolerance asks for")
    for field in SAME_BITS:
        values = list(dict.fromkeys(str(getattr(execution, field)) for execution in executions))
        if len(values) > 1:
            reason = f"`{field}` was {' and '.join(values)} in the attempts, so rounding differs"
            return Expectation(tolerance=TOLERANCE, reason=reason)
    if executions[0].device != "cpu" and not executions[0].deterministic:
        reason = "without --deterministic, GPU kernels do not reproduce their rounding"
        return Expectation(tolerance=TOLERANCE, reason=reason)
    return Expectation(tolerance=0.0, reason="all attempts had the same execution")


def _check_replayable(path: Path) -> None:
    """Refuse what cannot be trained again, or could not be concluded from, before hours are spent
    on it.
    """
    recorded = read_run(path).intact()
    assert recorded.status is not None and recorded.math is not None, "an intact run has both"
    state = recorded.status.state
    if state != "complete":
        name = recorded.math.recipe.name
        raise UsageError(
            f"{path} is {state}, not complete: finish it with `densekit run {name}`, then replay it"
        )
    first = recorded.execution.starts_from if recorded.execution else None
    if first is not None and not RunDir(Path(first)).complete:
        raise DataError(
            f"{path} starts from {first}, which is missing or not complete: restore that run, "
            "then replay"
        )
    made = _made_again(recorded.math.recipe)
    bad = [
        check
        for check in verify_run(path)
        if check.name not in made
        and (check.state == "fail" or (check.state == "warn" and check.name in INPUTS))
    ]
    if bad:
        more = (
            f" (and {len(bad) - 1} more: `densekit verify {shlex.quote(str(path))}`)"
            if len(bad) > 1
            else ""
        )
        raise DataError(f"{path} cannot be replayed: {bad[0].name}: {bad[0].message}{more}")


def _made_again(math: Math) -> list[str]:
    """The inputs that the trainer makes from the recipe: the files there now may be of another
    recipe.
    """
    if math.assets is None:
        return []
    references = {
        **math.models.model_dump(),
        "tokenizer": math.models.tokenizer_folder,
        "annotations": math.data.annotations,
    }
    return [name for name in INPUTS if str(references.get(name)).startswith(MADE_ASSETS)]


def _executions(run: RunDir) -> list[Execution]:
    """The execution of every attempt of a run, in order; DataError when one is missing."""
    found = []
    for number in range(1, run.status.attempt + 1):
        path = run.attempt_folder(number) / "execution.json"
        if not (values := optional_object(path)):
            raise DataError(
                f"{path} is missing or empty, so the execution of {run.path} is unknown; restore "
                "the file from a copy"
            )
        found.append(Execution.from_json(values, source=str(path)))
    return found


def _verdict(found: Comparison, expected: Expectation) -> Iterator[str]:
    wanted = f"equal within {expected.tolerance:g}" if expected.tolerance else "bitwise equal"
    if not expected.met(found):
        yield f"the replay diverges from the run; expected: {wanted} ({expected.reason})"
        if not expected.tolerance:
            near = compare_runs(Path(found.a), Path(found.b), tolerance=TOLERANCE).equal
            yield f"within {TOLERANCE:g} they are {'equal' if near else 'not equal either'}"
    elif found.first_bit_difference is None:
        yield "the replay is bitwise equal to the run, trained weights included"
    else:
        yield f"the replay is {wanted} ({expected.reason})"
