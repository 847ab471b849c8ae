"""`densekit evaluate`: plan what is asked, let a launcher ask it, score the answers."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densekit.audit.report.write import keep_report
from densekit.errors import DataError, DensekitError, UsageError
from densekit.evaluate.data import DATA_SETS, BenchmarkData, in_tiles, present, read_data
from densekit.evaluate.flips import SAMPLE, compare, sample_images
from densekit.evaluate.model_files import model_of
from densekit.evaluate.planning import plan_benchmark
from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.results import finish, lacks_answers
from densekit.evaluate.store import open_evaluation
from densekit.launch.chain import locked, start
from densekit.launch.launchers.base import Launcher
from densekit.runs.evaluations import Evaluation, EvaluationFolder, FlipRate, StoredResult
from densekit.runs.layout import MATH_FILE, RunDir
from densekit.spec.execution import Execution
from densekit.spec.math import Math
from densekit.spec.roots import Roots
from densekit.spec.types import Dtype

SEED = 42
"""Of sampled answers, as in the official runner."""
KERNEL = "sdpa of transformers"


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What an evaluation came to."""

    code: int
    folder: EvaluationFolder | None = None
    results: tuple[StoredResult, ...] = ()
    """Empty unless `code` is 0."""


def evaluate(
    source: Path,
    *,
    benchmarks: Sequence[str] = (),
    limit: int | None = None,
    batch_size: int | None = None,
    execution: Execution,
    launcher: Launcher,
    part: str = "",
) -> Evaluated:
    """Ask the model of a complete run, or of an imported checkpoint, the benchmarks (none named:
    those whose data is here), and score its answers; what is answered already is not asked again.
    `part`: of the command, as a bar shows it.

    A batch size above a protocol's is used only after a sample was asked both ways, and what
    changed is printed. Raises DataError for data that is missing or of another version, UsageError
    for what cannot work here.
    """
    for option, value in (("--limit", limit), ("--batch-size", batch_size)):
        if value is not None and value < 1:
            raise UsageError(f"{option} {value}: give a number of at least 1")
    for name in benchmarks:
        get_protocol(name)
    model = model_of(source, execution.roots.cache)
    math, roots = math_of(source), execution.roots
    names = [*dict.fromkeys(benchmarks)] or [*present(math, roots)]
    if not names:
        raise DataError(f"{source}: {nothing_here(roots)}")
    data = [read_data(name, math, roots) for name in names]
    if model.anyres is not None:
        data = [in_tiles(each) for each in data]
    launcher.check(execution)

    def ask(parts: Sequence[BenchmarkData], limit: int | None, size: int | None) -> Evaluated:
        planned = [plan_benchmark(each, roots, limit=limit, batch_size=size) for each in parts]
        evaluation = Evaluation(
            model=model,
            benchmarks=tuple(asked for asked, _ in planned),
            limit=limit,
            seed=SEED,
            dtype=execution.dtype,
            device=execution.device,
            kernel=KERNEL,
            environment=launcher.inspection_environment(execution),
        )
        plans = {asked.protocol.name: plan for asked, plan in planned}
        folder = open_evaluation(source.resolve(), evaluation, plans)
        return Evaluated(code=_carry_out(folder, execution, launcher, part), folder=folder)

    flips: dict[str, FlipRate] = {}
    for each in data:
        decoding = each.protocol.decoding
        if batch_size is None or batch_size <= decoding.batch_size or decoding.do_sample:
            continue
        images = sample_images(each.questions, SAMPLE)
        asked = [ask([each], images, size) for size in (decoding.batch_size, batch_size)]
        if code := next((one.code for one in asked if one.code), 0):
            return Evaluated(code=code)
        one, many = (part.folder for part in asked)
        assert one is not None and many is not None
        rate = compare(one, many, each.protocol.name)
        flips[each.protocol.name] = rate
        print(
            f"{each.protocol.title}: {rate.flips} of {rate.questions} answers differ between "
            f"batches of {decoding.batch_size} and of {batch_size}",
            flush=True,
        )
    found = ask(data, limit, batch_size)
    if found.code != 0 or found.folder is None:
        return found
    results = finish(found.folder, flips)
    if math is not None:
        keep_report(source)
    return Evaluated(code=0, folder=found.folder, results=results)


def evaluate_here(source: Path, execution: Execution, launcher: Launcher, *, part: str = "") -> int:
    """The end of a chain: evaluate what benchmark data is here, and print it; where there is none,
    one line says how to get some, and that is no error. Returns an exit code.
    """
    if not present(math_of(source), execution.roots):
        print(f"not evaluated: {nothing_here(execution.roots)}", file=sys.stderr)
        return 0
    asked = evaluation_execution(execution, dtype=None)
    try:
        found = evaluate(source, execution=asked, launcher=launcher, part=part)
    except DensekitError as error:
        raise type(error)(f"the run is complete; its evaluation: {error}") from None
    if found.code == 0:
        print("\n".join(report(found.results)))
    return found.code


def evaluation_execution(trained: Execution, *, dtype: Dtype | None) -> Execution:
    """How a model is asked on the machines that `trained` names: fp16 as officially, fp32 on a
    CPU, where one thread a process keeps the sums the same on any number of them.
    """
    on_cpu = trained.device == "cpu"
    return Execution(
        device=trained.device,
        gpu=trained.gpu,
        world_size=trained.world_size,
        nodes=trained.nodes,
        dtype=dtype or ("fp32" if on_cpu else "fp16"),
        threads=1 if on_cpu else trained.threads,
        roots=trained.roots.absolute(),
    )


def math_of(source: Path) -> Math | None:
    """The recipe of a run; None for an imported checkpoint."""
    return RunDir(source).math.recipe if (source / MATH_FILE).is_file() else None


def nothing_here(roots: Roots) -> str:
    """What to do where no benchmark's data is."""
    return (
        f"no benchmark's questions are in {roots.resolve('data:benchmarks')}; `densekit fetch "
        f"{DATA_SETS['pope']}` fetches some, then `densekit evaluate RUN` asks them"
    )


def report(results: Sequence[StoredResult]) -> list[str]:
    """One line per benchmark, another for `fixed` where it differs, and what marks the figures."""
    lines: list[str] = []
    for result in results:
        twin = next(
            each
            for each in results
            if each.benchmark == result.benchmark and each.semantics == "faithful"
        )
        if result.semantics == "fixed" and (result.value, result.problem) == (
            twin.value,
            twin.problem,
        ):
            continue
        lines.append(_line(result))
    return lines


def _line(result: StoredResult) -> str:
    shown = f"{result.value:.2f}" if result.value is not None else f"no value: {result.problem}"
    marks: list[str] = [result.semantics] if result.semantics == "fixed" else []
    figures = {name: figure for name, figure in result.figures.items() if "/" not in name}
    if (right := figures.pop("right", None)) is not None:
        marks.append(f"{right:.0f}/{result.questions} right")
    else:
        marks.append(f"{result.questions} question{'' if result.questions == 1 else 's'}")
    shown_first = next((name for name in figures if figures[name] == result.value), None)
    marks += [f"{name} {value:.4g}" for name, value in figures.items() if name != shown_first]
    marks += [f"{count} {note}" for note, count in result.notes.items()]
    if not result.complete:
        marks.append(f"INCOMPLETE: of {result.available}")
    if result.dtype != result.official_dtype:
        marks.append(f"{result.dtype}, officially {result.official_dtype}")
    if (rate := result.flip_rate) is not None:
        marks.append(f"batch {result.batch_size}, {rate.flips} of {rate.questions} flipped")
    if result.other_protocol:
        marks.append(f"OTHER PROTOCOL: {result.other_protocol}")
    return f"{result.title}, {result.split}: {shown} ({'; '.join(marks)})"


def _carry_out(
    folder: EvaluationFolder, execution: Execution, launcher: Launcher, part: str
) -> int:
    """Ask what has no answer yet; returns an exit code."""
    with locked(folder):
        if folder.complete and not lacks_answers(folder):
            return 0
        return start(folder, execution, launcher, part=part)
