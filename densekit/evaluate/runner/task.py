"""`densekit answer EVALUATION_DIR`: ask a model the questions of an evaluation that have no answer
yet, on every rank, and append the answers in the plan's order.
"""

import os
import signal
from pathlib import Path

import torch
from torch import distributed
from transformers.utils import logging

from densekit.errors import DataError, UsageError
from densekit.evaluate.runner.appending import ask_all, left_of
from densekit.evaluate.runner.asking import Asker
from densekit.evaluate.runner.loading import load_evaluated
from densekit.files.json_files import read_object, write_json
from densekit.ranks.collectives import end_process_group, gather_objects
from densekit.ranks.work import carry_out
from densekit.runs.environment import ENVIRONMENT_FILE, environment
from densekit.runs.evaluations import EvaluationFolder, read_plan
from densekit.runs.preemption import StopRequests
from densekit.runs.processes import die_with_parent
from densekit.spec.execution import Execution

VERSIONS = ("densekit", "torch", "transformers", "tokenizers", "sentencepiece", "pillow", "numpy")
"""Packages on which answers depend."""


def answer(path: Path) -> None:
    """Answer what is left of an evaluation; its status says how far it came.

    Raises UsageError when its latest attempt ran before, and Preempted when it was asked to stop.
    Any other DensekitError is raised after it was recorded; the same evaluation can then be started
    again, on another number of processes too.
    """
    logging.disable_progress_bar()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent(signal.SIGKILL)
    folder = EvaluationFolder(path)
    execution = folder.execution
    if execution.is_distributed:
        distributed.init_process_group("gloo")  # what is sent are texts
    rank = distributed.get_rank() if execution.is_distributed else 0
    carry_out(folder, lambda requests: _answer(folder, execution, requests), main=rank == 0)
    end_process_group()


def _answer(folder: EvaluationFolder, execution: Execution, requests: StopRequests) -> None:
    device = _device(execution)
    evaluation = folder.evaluation
    rank = distributed.get_rank() if execution.is_distributed else 0
    if rank == 0:
        _settle_environment(folder)
    plans = [(asked, read_plan(folder, asked)) for asked in evaluation.benchmarks]
    left = [left_of(folder, evaluation, asked, plan) for asked, plan in plans]
    # Before rank 0 appends anything, every rank has read what is there.
    gather_objects(None)
    loaded = load_evaluated(folder.source, evaluation, device) if any(left) else None
    if rank == 0:
        folder.log.touch()
    requests.in_steps = True
    for (asked, plan), batches in zip(plans, left, strict=True):
        if loaded is not None and batches:
            key = evaluation.key(asked.protocol.name)
            ask_all(
                folder,
                asked,
                key,
                plan,
                batches,
                loaded.preparer(asked.protocol, execution.roots),
                Asker(
                    model=loaded.model,
                    tokenizer=loaded.tokenizer,
                    decoding=loaded.decoding(asked.protocol),
                    seed=evaluation.seed,
                    key=key,
                ),
                requests,
            )


def _device(execution: Execution) -> torch.device:
    if execution.device == "cpu":
        # Else the number of processes would decide how sums are split.
        torch.set_num_threads(1)
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError(
            "--device cuda: torch sees no CUDA device here; check the driver, or use --device cpu"
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _settle_environment(folder: EvaluationFolder) -> None:
    """Write environment.json of the attempt, and that of the first one beside evaluation.json.
    Raises DataError where answers are there and the packages are others now.
    """
    found = environment()
    write_json(folder.attempt / ENVIRONMENT_FILE, found.as_json())
    path = folder.path / ENVIRONMENT_FILE
    if not path.exists():
        write_json(path, found.as_json())
        return
    earlier = read_object(path, "packages", remedy="remove the evaluation's folder")["packages"]
    for name in VERSIONS:
        before, now = earlier.get(name), found.packages.get(name)
        if before != now:
            raise DataError(
                f"{folder.path} was begun with {name} {before}, and this is {name} {now}: install "
                "that version to go on, or remove the folder to ask everything anew"
            )
