"""`densekit train RUN_DIR`: carry out one run from its directory, and write everything it does
there."""

import os
import signal
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError
from transformers.utils import logging

from densekit.audit.report.write import keep_report
from densekit.batching.certificate import BatchCertificate, CertificateBuilder
from densekit.batching.run_order import RunOrder
from densekit.data.certificate import known_root
from densekit.errors import DataError
from densekit.files import durable
from densekit.files.json_files import read_json, write_json
from densekit.model.weights import read_weights
from densekit.ranks.collectives import end_process_group
from densekit.ranks.work import carry_out
from densekit.runs.complete import check_complete, drop_checkpoints
from densekit.runs.environment import ENVIRONMENT_FILE, Environment, environment
from densekit.runs.layout import CERTIFICATE_FILE, INIT_FILE, RunDir
from densekit.runs.manifest import (
    MANIFEST_FILE,
    Manifest,
    ModelFiles,
    complete_manifest,
    hash_models,
    start_manifest,
)
from densekit.runs.preemption import StopRequests
from densekit.runs.processes import die_with_parent
from densekit.runs.records import Records, read_steps
from densekit.runs.results import Results, Summary
from densekit.runs.trackers import require_trackers
from densekit.spec.execution import Execution
from densekit.spec.ledger import ledger_lines
from densekit.spec.math import Math
from densekit.spec.roots import Roots
from densekit.toy.models import ensure_tiny
from densekit.train.assembly import build_trainer
from densekit.train.background import Worker
from densekit.train.engines.process_group import devices, make_accelerator
from densekit.train.initial_state import build, init_by_parameter
from densekit.train.inputs import (
    check_earlier_inputs,
    check_inputs,
    make_reader,
    settle_certificate,
    settle_missing,
)
from densekit.train.model_check import check_models
from densekit.train.outputs import save_results
from densekit.train.report import report
from densekit.train.resume import resume
from densekit.train.save_policy import RunSaver
from densekit.train.step_dataset import SampleReader
from densekit.train.teaches import check_labels, check_schedule, check_taught, schedule_note
from densekit.train.trackers import Trackers
from densekit.train.utilization import Utilization


def train(run_dir: Path) -> None:
    """Train the run in `run_dir`, from its newest checkpoint if it has one; its status says how far
    it came.

    Raises UsageError when its latest attempt ran before, so that nothing measured is overwritten,
    and Preempted when it was asked to stop. Any other DensekitError is raised after it was
    recorded; the run is then `failed` and can be started again.
    """
    run = RunDir(run_dir)
    execution = run.execution
    accelerator = begin_rank(execution, run.math.recipe)
    carry_out(
        run,
        lambda requests: _train(run, execution, accelerator, requests),
        main=accelerator.is_main_process,
    )
    if accelerator.is_main_process:
        # The result is written and hashed: what only served to continue goes.
        with suppress(OSError):  # what stays is removed by the next `densekit ls`
            drop_checkpoints(run)
        keep_report(run.path)
    end_process_group()


def begin_rank(execution: Execution, math: Math) -> Accelerator:
    """Make this process a rank of a run: its Accelerator. Raises as `make_accelerator`."""
    logging.disable_progress_bar()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent(signal.SIGKILL)
    return make_accelerator(execution, max_grad_norm=math.optimizer.max_grad_norm)


def open_reader(math: Math, roots: Roots, accelerator: Accelerator) -> SampleReader:
    """The samples of a run, after the kit made what it makes itself and the models were looked at.
    Raises DataError for what is missing or wrong.
    """
    main = accelerator.is_main_process
    if main and math.assets:
        ensure_tiny(roots.resolve("cache:tiny"), math.assets)
    accelerator.wait_for_everyone()
    check_models(math, roots, main=main)
    return make_reader(math, roots)


def _train(
    run: RunDir, execution: Execution, accelerator: Accelerator, requests: StopRequests
) -> None:
    math, roots = run.math.recipe, execution.roots
    main = accelerator.is_main_process
    require_trackers(execution.trackers)
    if main:
        write_json(run.attempt / ENVIRONMENT_FILE, environment(devices(accelerator)).as_json())
    stage1 = _stage1(run, execution)
    reader = open_reader(math, roots, accelerator)
    check_inputs(run, roots, reader.samples.sha256)
    order = RunOrder(math, reader.index.modality_lengths)
    # Rank 0 hashes the models while it and the others load them.
    hashing = Worker(partial(hash_models, _model_folders(math, roots)), name="hash")
    if main:
        hashing.start()
    model = build(run, math, roots, stage1, execution, accelerator)
    manifest: Manifest | None = None
    if main:
        settle_missing(run, reader.chosen)
        settle_certificate(
            run, order.certificate(reader.index.sample_ids()), execution.certificate_sha256
        )
        manifest = _start(run, execution, roots, reader.samples.sha256, hashing.wait())
    trainer = build_trainer(
        model,
        reader,
        order.steps(),
        math,
        execution,
        accelerator,
        utilization=Utilization.here(math, execution),
    )
    check_schedule(math.optimizer, len(trainer.dataset))
    check_labels(trainer.dataset)
    started = resume(run, trainer, execution.from_checkpoint)
    position = started.position
    saver = RunSaver(trainer.engine, run, execution.checkpoints, requests)
    with ExitStack() as stack:
        stack.callback(saver.close)
        records = log = trackers = None
        if main:
            earlier = run.attempt_folder(run.status.attempt - 1)
            keep_in = earlier if earlier.is_dir() else None
            records = stack.enter_context(Records(run.path, position, keep_in=keep_in))
            log = stack.enter_context(run.log.open("w", encoding="utf-8"))
            log.writelines(f"{line}\n" for line in started.lines)
            if execution.trackers:
                trackers = stack.enter_context(Trackers(execution.trackers, run))
        requests.in_steps = True
        summary = trainer.train(
            records,
            label=run.name,
            start=position.steps,
            saver=saver,
            log=log,
            trackers=trackers,
        )
        check_taught(trainer, init_by_parameter(read_weights(run.path / INIT_FILE)))
        # Whatever goes wrong from here on, no step is trained again.
        saver.save(trainer, len(trainer.dataset), records)
        saver.finish()
        try:
            tokenizer = roots.resolve(math.models.tokenizer_folder)
            outputs = save_results(trainer.engine, run, math, tokenizer)
            if main:
                assert log is not None and manifest is not None
                _check_fed(run)
                lines = schedule_note(math.optimizer, len(trainer.dataset))
                lines += _finish(run, execution, reader, manifest, outputs, summary)
                log.write("\n".join(lines) + "\n")
                print("\n".join(lines))
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"the results cannot be written to {run.path}: "
                f"{getattr(error, 'strerror', None) or error}; every step is in its newest "
                "checkpoint: free disk space, then start the run again"
            ) from None
    accelerator.wait_for_everyone()


def _stage1(run: RunDir, execution: Execution) -> RunDir | None:
    """The run that this one starts from; DataError when it is gone, unfinished or another one."""
    if execution.starts_from is None:
        return None
    stage1 = RunDir(Path(execution.starts_from))
    if not stage1.complete:
        raise DataError(
            f"the stage-1 run {stage1.path} is missing or not complete; `densekit run {run.name}` "
            "trains it first"
        )
    if stage1.sha256 != run.math.starts_from:
        raise DataError(
            f"{stage1.path} is not the stage-1 run that {run.path} starts from: its math.json "
            "differs"
        )
    check_complete(stage1)
    return stage1


def _model_folders(math: Math, roots: Roots) -> dict[str, Path]:
    models = math.models
    folders = {
        "language_model": roots.resolve(models.language_model),
        "vision_tower": roots.resolve(models.vision_tower),
        "tokenizer": roots.resolve(models.tokenizer_folder),
    }
    if models.high_resolution_tower is not None:
        folders["high_resolution_tower"] = roots.resolve(models.high_resolution_tower)
    return folders


def _start(
    run: RunDir,
    execution: Execution,
    roots: Roots,
    annotations_sha256: str,
    models: dict[str, ModelFiles],
) -> Manifest:
    """Write the manifest of what this attempt starts from."""
    images = roots.resolve(run.math.recipe.data.images)
    manifest = start_manifest(
        math=run.math,
        environment=Environment.model_validate(read_json(run.attempt / ENVIRONMENT_FILE)),
        execution=execution,
        attempts=run.status.attempt,
        certificate=BatchCertificate.from_json(read_json(run.path / CERTIFICATE_FILE)),
        annotations_sha256=annotations_sha256,
        certificate_root=known_root(roots.cache, annotations_sha256, images),
        models=models,
        init=run.path / INIT_FILE,
    )
    check_earlier_inputs(run, manifest)
    write_json(run.path / MANIFEST_FILE, manifest.as_json())
    return manifest


def _check_fed(run: RunDir) -> None:
    """Compare what all attempts together fed with the certificate."""
    fed = CertificateBuilder()
    for record in read_steps(run.metrics):
        fed.add(record.ids)
    certified = read_json(run.path / CERTIFICATE_FILE)["sha256"]
    if fed.sha256 != certified:
        raise DataError(
            f"{run.metrics} records other samples ({fed.sha256[:10]}) than its certificate "
            f"({certified[:10]}); retrain with --force"
        )


def _finish(
    run: RunDir,
    execution: Execution,
    reader: SampleReader,
    manifest: Manifest,
    outputs: list[Path],
    summary: Summary,
) -> list[str]:
    """Write results and manifest; returns the report's lines."""
    results = Results(summary=summary)
    files = [*outputs, results.write(run.path)]
    completed = complete_manifest(manifest, run=run.path, outputs=files)
    write_json(run.path / MANIFEST_FILE, completed.as_json())
    for path in (files[-1], run.path / MANIFEST_FILE, run.path):
        durable.fsync(path)
    return report(results, str(run.path), ledger_lines(run.math.recipe, execution.dtype))
