"""`densekit replay`: a complete run carried out once more in the same way, and compared with what
it recorded.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from densekit.audit.diff.compare import Comparison, check_tolerance, compare_runs
from densekit.audit.model_files import PARTS
from densekit.audit.run_reader import Evidence, read_evidence, section
from densekit.audit.verify.verify import verify_run
from densekit.errors import DataError, UsageError
from densekit.files.json_files import optional_object
from densekit.launch.chain import locked, start
from densekit.launch.launchers.local import Local
from densekit.runs.layout import RunDir, open_replay
from densekit.spec.execution import Execution
from densekit.spec.math import MADE_ASSETS

TOLERANCE = 1e-5
INPUTS = (*PARTS, "annotations", "connector")
# What has to be alike for two attempts to repeat each other's bits.
ALIKE = (
    "device",
    "dtype",
    "attention",
    "world_size",
    "zero_stage",
    "micro_batch_size",
    "threads",
    "activation_checkpointing",
    "deterministic",
)


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """How near a replay has to come: `tolerance` 0 is to the last bit; `reason` says in words why."""

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
    deterministic kernels. A replay that was stopped goes on. Without a `tolerance` it has to be
    equal to the last bit where that can be expected (see `expect`), else within 1e-5. Returns 0
    when it is, 1 when the two part, the trainer's exit code when training fails.

    Raises DataError when `path` is no run directory, is damaged, or what it was trained from
    changed or is gone; UsageError when it is not complete.
    """
    check_tolerance(tolerance or 0.0)
    _check_replayable(path)
    original = RunDir(path)
    executions = _executions(original)
    execution = executions[-1].model_copy(
        update={"deterministic": deterministic or executions[-1].deterministic}
    )
    Local().check(execution)
    place = path.resolve()
    run = open_replay(runs_dir or place.parent, place.name, original.math)
    with locked(run):
        code = 0 if run.complete else start(run, execution)
    if code != 0:
        print(f"{run.path}: `densekit replay {path}` goes on with it", file=sys.stderr, flush=True)
        return code
    expected = expect([*executions, *_executions(run)], tolerance)
    found = compare_runs(path, run.path, tolerance=expected.tolerance)
    print("\n".join([*found.report(), *_verdict(found, expected)]))
    return 0 if expected.met(found) else 1


def expect(executions: Sequence[Execution], tolerance: float | None) -> Expectation:
    """What attempts carried out like this promise: bits, when all are alike and, on a GPU,
    deterministic.

    `executions` are those of a run's attempts and of its replay's. A `tolerance` that was asked for
    replaces the rule.
    """
    if tolerance is not None:
        return Expectation(tolerance=tolerance, reason="that was asked for")
    for field in ALIKE:
        values = list(dict.fromkeys(str(getattr(execution, field)) for execution in executions))
        if len(values) > 1:
            reason = f"`{field}` was {' and '.join(values)} in their attempts, so roundings differ"
            return Expectation(tolerance=TOLERANCE, reason=reason)
    if executions[0].device != "cpu" and not executions[0].deterministic:
        reason = "without --deterministic a GPU's kernels do not repeat their roundings"
        return Expectation(tolerance=TOLERANCE, reason=reason)
    return Expectation(tolerance=0.0, reason="all attempts were carried out in the same way")


def _check_replayable(path: Path) -> None:
    """Refuse what cannot be trained again, or could not be concluded from, before hours are spent
    on it.
    """
    evidence = read_evidence(path)
    if evidence.state != "complete":
        name = evidence.recipe.get("name")
        raise UsageError(
            f"{path} is {evidence.state}, not complete: finish it with `densekit run {name}`, then replay"
        )
    first = evidence.execution.get("starts_from")
    if first is not None and not RunDir(Path(str(first))).complete:
        raise DataError(
            f"{path} starts from {first}, which is gone or not complete: put that run back, then replay"
        )
    made = _made_again(evidence)
    bad = [
        check
        for check in verify_run(path)
        if check.name not in made
        and (check.state == "fail" or (check.state == "warn" and check.name in INPUTS))
    ]
    if bad:
        more = f" (and {len(bad) - 1} more: `densekit verify {path}`)" if len(bad) > 1 else ""
        raise DataError(f"{path} cannot be replayed: {bad[0].name}: {bad[0].message}{more}")


def _made_again(evidence: Evidence) -> list[str]:
    """The inputs that the trainer makes from the recipe: what lies in their place may be another
    recipe's.
    """
    if evidence.recipe.get("assets") is None:
        return []
    place = evidence.path / "math.json"
    models, data = (section(evidence.recipe, name, place) for name in ("models", "data"))
    references = {**models, "annotations": data.get("annotations")}
    references["tokenizer"] = models.get("tokenizer") or models.get("language_model")
    return [name for name in INPUTS if str(references.get(name)).startswith(MADE_ASSETS)]


def _executions(run: RunDir) -> list[Execution]:
    """How every attempt of a run was carried out, the first one first; DataError when one does not
    say.
    """
    found = []
    for number in range(1, run.status.attempt + 1):
        path = run.attempt_folder(number) / "execution.json"
        if not (values := optional_object(path)):
            raise DataError(
                f"{path} is missing or empty, so how {run.path} was trained is not known; "
                "put back a copy"
            )
        found.append(Execution.from_json(values, source=str(path)))
    return found


def _verdict(found: Comparison, expected: Expectation) -> Iterator[str]:
    wanted = (
        f"equal within {expected.tolerance:g}" if expected.tolerance else "equal to the last bit"
    )
    if not expected.met(found):
        yield f"the replay parts from the run; it should be {wanted}: {expected.reason}"
        if not expected.tolerance:
            near = compare_runs(Path(found.a), Path(found.b), tolerance=TOLERANCE).equal
            yield f"within {TOLERANCE:g} the two are {'equal' if near else 'not equal either'}"
    elif found.first_bit_difference is None:
        yield "the replay is equal to the last bit, trained weights included"
    else:
        yield f"the replay is {wanted}: {expected.reason}"
