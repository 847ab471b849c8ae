"""`densekit train RUN_DIR`: carry out one run from its directory, and write everything it does
there."""

import os
import signal
import socket
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from transformers.utils import logging

from densekit.audit.report.write import keep_report
from densekit.batching.certificate import BatchCertificate, CertificateBuilder
from densekit.batching.run_order import RunOrder
from densekit.data.certificate import known_root
from densekit.errors import DataError, DensekitError, UsageError
from densekit.files import durable
from densekit.files.json_files import read_json, write_json
from densekit.model.weights import read_weights
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
from densekit.runs.processes import die_with_parent
from densekit.runs.records import Records, read_steps
from densekit.runs.results import Results, Summary
from densekit.spec.execution import Execution
from densekit.spec.ledger import ledger_lines
from densekit.spec.math import Math
from densekit.spec.roots import Roots
from densekit.text.tokenizers.base import load_tokenizer
from densekit.toy.held_out import run_probe
from densekit.toy.models import ensure_tiny
from densekit.train.assembly import build_trainer
from densekit.train.background import Worker
from densekit.train.collectives import end_process_group, gather_objects
from densekit.train.engines.process_group import devices, make_accelerator
from densekit.train.initial_state import build, init_by_parameter
from densekit.train.inputs import (
    check_earlier_inputs,
    check_inputs,
    make_encoder,
    make_reader,
    settle_certificate,
    settle_missing,
)
from densekit.train.model_check import check_models
from densekit.train.outputs import load_trained, save_results
from densekit.train.preemption import Interrupted, Preempted, RankLost, StopRequests
from densekit.train.report import report
from densekit.train.resume import resume
from densekit.train.save_policy import RunSaver
from densekit.train.step_dataset import SampleReader
from densekit.train.teaches import check_labels, check_schedule, check_taught, schedule_note
from densekit.train.utilization import Utilization

DYING_TRAINER_S = 5.0
"""How long a run's lock is waited for: a killed trainer holds it until its last thread is gone."""

PEER_ENDED = "another rank of this run ended"


def train(run_dir: Path) -> None:
    """Train the run in `run_dir`, from its newest checkpoint if it has one; its status says how far
    it came.

    Raises UsageError when its latest attempt ran before, so that nothing measured is overwritten,
    and Preempted when it was asked to stop. Any other DensekitError is raised after it was
    recorded; the run is then `failed` and can be started again.
    """
    logging.disable_progress_bar()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent(signal.SIGKILL)
    run = RunDir(run_dir)
    execution, math = run.execution, run.math.recipe
    accelerator = make_accelerator(execution, max_grad_norm=math.optimizer.max_grad_norm)
    with ExitStack() as stack:
        _claim(run, accelerator.is_main_process, stack)
        requests = StopRequests(run.stop_file if accelerator.is_main_process else None)
        try:
            _train(run, execution, accelerator, requests)
        except Preempted as error:
            run.set_status("preempted", message=str(error), exit_code=error.exit_code)
            end_process_group()
            if "TORCHELASTIC_RUN_ID" in os.environ:
                # torchrun would report another code as a crash; the status tells.
                raise SystemExit(0) from None
            raise
        except Interrupted as error:
            lost = requests.lost_peer()
            raise _failed(run, RankLost(PEER_ENDED) if lost else error) from None
        except DensekitError as error:
            raise _failed(run, error) from None
        except BaseException as error:
            if requests.lost_peer():  # a broken collective's error, not what happened
                raise _failed(run, RankLost(PEER_ENDED)) from None
            if isinstance(error, OSError):  # no disk space, no permission, a folder that went away
                place = f"{error.filename}: " if error.filename else ""
                raise _failed(run, DataError(f"{place}{error.strerror or error}")) from None
            run.fail(f"{type(error).__name__}: {error}", 1)
            raise
        if accelerator.is_main_process:
            run.set_status("complete")
            # The result is written and hashed: what only served to continue goes.
            with suppress(OSError):  # what stays is removed by the next `densekit ls`
                drop_checkpoints(run)
            keep_report(run.path)
        end_process_group()


def _failed(run: RunDir, error: DensekitError) -> BaseException:
    """The error to raise: of several ranks that fail, the first one tells, and the others end
    without a word.
    """
    try:
        first = run.fail(str(error), error.exit_code)
    except OSError:  # the disk is full: the error is said all the same
        first = True
    return error if first else SystemExit(error.exit_code)


def _claim(run: RunDir, main: bool, stack: ExitStack) -> None:
    """Rank 0 takes the run, for all ranks: one trainer per run, also where the driver that started
    it is gone.

    Raises UsageError on rank 0 when the run is taken or its attempt ran before; the other ranks end
    without a word.
    """
    problem = None
    if main:
        try:
            stack.enter_context(FileLock(run.path / ".trainer.lock", timeout=DYING_TRAINER_S))
            _check_fresh(run)
            run.set_status("running")
        except Timeout:
            problem = f"{run.path} is being trained by another process; wait for it or stop it"
        except UsageError as error:
            problem = str(error)
    (problem, *_) = gather_objects(problem)
    if problem is not None:
        raise UsageError(problem) if main else SystemExit(UsageError.exit_code)


def _check_fresh(run: RunDir) -> None:
    status = run.status
    if status.state != "created":
        raise UsageError(
            f"{run.path}: attempt {status.attempt} ran before and is {status.state}; "
            f"`densekit run {run.name}` opens another one (--force when it is complete)"
        )


def _train(
    run: RunDir, execution: Execution, accelerator: Accelerator, requests: StopRequests
) -> None:
    math, roots = run.math.recipe, execution.roots
    main = accelerator.is_main_process
    here = socket.gethostname()
    requests.install(
        [
            pid
            for pid, host in gather_objects((os.getpid(), here))
            if host == here and pid != os.getpid()
        ]
    )
    if main:
        write_json(run.attempt / ENVIRONMENT_FILE, environment(devices(accelerator)).as_json())
        if math.assets:
            ensure_tiny(roots.resolve("cache:tiny"), math.assets)
    accelerator.wait_for_everyone()
    check_models(math, roots, main=main)
    stage1 = _stage1(run, execution)
    reader = make_reader(math, roots)
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
        records = log = None
        if main:
            earlier = run.attempt_folder(run.status.attempt - 1)
            keep_in = earlier if earlier.is_dir() else None
            records = stack.enter_context(Records(run.path, position, keep_in=keep_in))
            log = stack.enter_context(run.log.open("w", encoding="utf-8"))
            log.writelines(f"{line}\n" for line in started.lines)
        requests.in_steps = True
        summary = trainer.train(records, label=run.name, start=position.steps, saver=saver, log=log)
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
    return {
        "language_model": roots.resolve(models.language_model),
        "vision_tower": roots.resolve(models.vision_tower),
        "tokenizer": roots.resolve(models.tokenizer_folder),
    }


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
    """Ask the held-out questions of the saved model, write results and manifest; returns the
    report's lines.
    """
    math, roots = run.math.recipe, execution.roots
    scores = None
    if math.probe:
        scores = run_probe(
            load_trained(run, roots),
            load_tokenizer(roots.resolve(math.models.tokenizer_folder)),
            make_encoder(math, roots),
            reader.processor,
            roots.resolve(math.probe.questions),
            roots.resolve(math.probe.images),
            seed=math.seed,
        )
    results = Results(summary=summary, probe=scores)
    files = [*outputs, results.write(run.path)]
    completed = complete_manifest(manifest, run=run.path, outputs=files)
    write_json(run.path / MANIFEST_FILE, completed.as_json())
    for path in (files[-1], run.path / MANIFEST_FILE, run.path):
        durable.fsync(path)
    return report(results, str(run.path), ledger_lines(math, execution.dtype))
