"""`densekit measure FOLDER`: the first steps of a recipe, timed; what they teach is not kept."""

from contextlib import ExitStack
from pathlib import Path

from accelerate import Accelerator

from densekit.batching.run_order import RunOrder
from densekit.files.json_files import write_json
from densekit.ranks.collectives import end_process_group
from densekit.ranks.work import carry_out
from densekit.runs.environment import ENVIRONMENT_FILE, environment
from densekit.runs.measurement import MeasureDir
from densekit.runs.preemption import Preempted, StopRequests
from densekit.runs.records import Position, Records
from densekit.spec.execution import Execution
from densekit.train.assembly import build_trainer
from densekit.train.engines.process_group import devices
from densekit.train.feed_check import STOP
from densekit.train.initial_state import build
from densekit.train.inputs import check_inputs, settle_certificate
from densekit.train.task import begin_rank, open_reader
from densekit.train.trainer import Trainer
from densekit.train.utilization import Utilization


def measure(folder: Path) -> None:
    """Take the steps of the measurement in `folder` and record each in its metrics.jsonl.

    The connector of a stage 2 is drawn, not trained: a step takes as long. Raises UsageError when
    the folder was measured before, and Preempted when it was asked to stop; any other DensekitError
    after it was recorded.
    """
    run = MeasureDir(folder)
    execution = run.execution
    accelerator = begin_rank(execution, run.math.recipe)
    carry_out(
        run,
        lambda requests: _measure(run, execution, accelerator, requests),
        main=accelerator.is_main_process,
    )
    end_process_group()


def _measure(
    run: MeasureDir, execution: Execution, accelerator: Accelerator, requests: StopRequests
) -> None:
    math, roots = run.math.recipe, execution.roots
    main = accelerator.is_main_process
    if main:
        write_json(run.attempt / ENVIRONMENT_FILE, environment(devices(accelerator)).as_json())
    reader = open_reader(math, roots, accelerator)
    check_inputs(run, roots, reader.samples.sha256)
    order = RunOrder(math, reader.index.modality_lengths)
    model = build(run, math, roots, None, execution, accelerator)
    if main:
        # It says how many steps the whole run has.
        certificate = order.certificate(reader.index.sample_ids())
        settle_certificate(run, certificate, execution.certificate_sha256)
    trainer = build_trainer(
        model,
        reader,
        order.steps()[: run.total_steps],
        math,
        execution,
        accelerator,
        utilization=Utilization.here(math, execution),
    )
    with ExitStack() as stack:
        records = log = None
        if main:
            records = stack.enter_context(Records(run.path, Position(chain=run.sha256)))
            log = stack.enter_context(run.log.open("w", encoding="utf-8"))
        requests.in_steps = True
        trainer.train(records, label=run.name, saver=_Stops(requests), log=log)
    accelerator.wait_for_everyone()


class _Stops:
    """The Saver of a measurement: it saves nothing, and ends where it is asked to."""

    def __init__(self, requests: StopRequests) -> None:
        self.requests = requests

    def flags(self, step: int) -> int:
        """A request to stop."""
        return STOP * self.requests.requested

    def settle(self, flags: int) -> None:
        """There is no save on its way."""

    def save(self, trainer: Trainer, step: int, records: Records | None) -> None:
        """Nothing is kept."""

    def stop(self, step: int) -> None:
        """What was measured so far is worth nothing."""
        raise Preempted(f"stopped after step {step}: nothing was measured")
