"""`densekit cross-check`: lmms-eval asks a model what densekit's evaluator asked it, in another
process.

lmms-eval and what it needs beside the trainer's packages lie in a folder that nothing else sees
(`make lmms-eval`): they never enter the trainer's lock.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from densekit.errors import DataError, UsageError
from densekit.evaluate.cross_check.compare import CrossCheck, compare_answers
from densekit.evaluate.cross_check.samples import read_samples
from densekit.evaluate.cross_check.tasks import Task, write_task
from densekit.runs.answers import read_answers
from densekit.runs.evaluations import (
    EvaluationFolder,
    StoredResult,
    newest_results,
    read_plan,
    read_scores,
)

PACKAGES = Path(sys.prefix) / "lmms_eval"
"""Where `make lmms-eval` installs it."""
FOLDER = "cross_check"
"""Below an evaluation: the tasks, and what lmms-eval wrote."""
TAIL = 2_000
"""Characters of lmms-eval's output that an error shows."""


def cross_check(source: Path, benchmarks: Sequence[str] = ()) -> list[CrossCheck]:
    """Ask again what was evaluated of a run or an imported checkpoint (no benchmark named: all that
    is greedy), and lay both answers and scores side by side.

    Raises UsageError where lmms-eval is not installed or nothing was evaluated, DataError where it
    fails, and for a benchmark that cannot be compared.
    """
    if not (PACKAGES / "lmms_eval" / "__init__.py").is_file():
        raise UsageError(
            f"lmms-eval is not installed in {PACKAGES}: `make lmms-eval` puts it there"
        )
    chosen = _chosen(source, benchmarks)
    by_folder: dict[Path, list[str]] = {}
    for name, (folder, _) in chosen.items():
        by_folder.setdefault(folder.path, []).append(name)
    found: list[CrossCheck] = []
    for path, names in by_folder.items():
        folder = EvaluationFolder(path)
        tasks = [_task(folder, name) for name in names]
        output = _ask(folder, tasks)
        found += [_compared(folder, task, chosen[task.benchmark][1], output) for task in tasks]
    return found


def _chosen(
    source: Path, benchmarks: Sequence[str]
) -> Mapping[str, tuple[EvaluationFolder, StoredResult]]:
    results = newest_results(source)
    if not results:
        raise UsageError(
            f"{source} has no evaluation that ended: `densekit evaluate "
            f"{shlex.quote(str(source))}` makes one, which lmms-eval then repeats"
        )
    if unknown := [name for name in benchmarks if name not in results]:
        raise UsageError(
            f"--benchmarks {unknown[0]}: {source} was evaluated on {', '.join(sorted(results))}"
        )
    if benchmarks:
        return {name: results[name] for name in dict.fromkeys(benchmarks)}
    greedy = {
        name: (folder, result)
        for name, (folder, result) in results.items()
        if not folder.evaluation.asked(name).protocol.decoding.do_sample
    }
    if not greedy:
        raise UsageError(f"{source}: every benchmark of its evaluations samples its answers")
    return greedy


def _task(folder: EvaluationFolder, benchmark: str) -> Task:
    asked = folder.evaluation.asked(benchmark)
    roots = folder.execution.roots
    return write_task(folder.path / FOLDER / "tasks", asked, read_plan(folder, asked), roots)


def command(tasks: Sequence[Task]) -> list[str]:
    """What is started in an evaluation's folder: paths with commas would split its arguments."""
    return [
        *(sys.executable, "-m", "lmms_eval", "--model", "densekit", "--model_args", "evaluation=."),
        *("--tasks", ",".join(task.name for task in tasks)),
        *("--include_path", f"{FOLDER}/tasks", "--batch_size", "1", "--log_samples"),
        *("--output_path", f"{FOLDER}/logs", "--seed", "0,1234,1234,1234"),
    ]


def _ask(folder: EvaluationFolder, tasks: Sequence[Task]) -> Path:
    """Run lmms-eval; returns where its logs are."""
    place = folder.path / FOLDER
    logs = place / "logs"
    shutil.rmtree(logs, ignore_errors=True)  # an earlier check's would pass for this one's
    environment = {
        **os.environ,
        "PYTHONPATH": str(PACKAGES),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(place / "cache"),
        "LMMS_EVAL_DATASETS_CACHE": str(place / "cache"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        command(tasks),
        cwd=folder.path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    # It ends with 0 also where the model failed.
    if done.returncode != 0 or not any(logs.rglob("*_results.json")):
        raise DataError(
            f"lmms-eval ended with exit code {done.returncode} and without results; the end of "
            f"what it said:\n{done.stdout[-TAIL:].strip()}"
        )
    return logs


def _compared(
    folder: EvaluationFolder, task: Task, result: StoredResult, output: Path
) -> CrossCheck:
    evaluation, name = folder.evaluation, task.benchmark
    asked = evaluation.asked(name)
    plan = read_plan(folder, asked)
    answers = read_answers(folder.answers(name), evaluation.key(name), plan)
    scores = read_scores(folder, name, result.semantics) if result.value is not None else ()
    return compare_answers(
        asked.protocol,
        batch_size=asked.batch_size,
        texts={line.question_id: line.text for line in answers.lines},
        scores={score.question_id: score for score in scores},
        value=result.value,
        imported=read_samples(output, task),
    )
