"""`densekit train RUN_DIR`: carry out one run from its directory, and write everything it does there."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from transformers.utils import logging

from densekit.batching.order import OfficialOrder, ReferenceTopology
from densekit.batching.steps import iterate_steps
from densekit.datasets.annotations import Annotations
from densekit.errors import DataError, DensekitError, UsageError
from densekit.model.loading import model_config, named_seed
from densekit.model.modeling import DenseConnectorForConditionalGeneration
from densekit.run.hashing import file_sha256, tree_sha256
from densekit.run.layout import INIT_FILE, RunDir, read_json, write_json
from densekit.run.manifest import environment
from densekit.run.roots import Roots
from densekit.text.encode import SampleEncoder
from densekit.text.lengths import modality_length
from densekit.text.tokenizer import load_tokenizer
from densekit.train.accelerators import make_accelerator
from densekit.train.build import build, save_results
from densekit.train.images import ImageProcessor
from densekit.train.loop import Summary, Trainer
from densekit.train.probe import run_probe
from densekit.train.samples import SampleReader, StepDataset
from densekit.train.tiny import ensure_tiny


def train(run_dir: Path) -> None:
    """Train the run in `run_dir`; its status says at any time how far it came.

    Raises UsageError when its latest attempt ran before, so that nothing measured is overwritten. Any other
    DensekitError is raised after it was recorded; the run is then `failed`.
    """
    logging.disable_progress_bar()
    run = RunDir(run_dir)
    execution = read_json(run.attempt / "execution.json")
    accelerator = make_accelerator(execution["device"])
    main = accelerator.is_main_process
    if main:
        if run.status["state"] != "created":
            name = run.math["recipe"]["name"]
            raise UsageError(
                f"{run.path}: attempt {run.status['attempt']} ran before and is {run.status['state']}; "
                f"`densekit run {name}` opens another one (--force when it is complete)"
            )
        run.set_status("running")
    try:
        _train(run, execution, accelerator)
    except DensekitError as error:
        run.set_status("failed", message=str(error), exit_code=error.exit_code)
        raise
    except BaseException as error:
        run.set_status("failed", message=f"{type(error).__name__}: {error}", exit_code=1)
        raise
    if main:
        run.set_status("complete")


def _train(run: RunDir, execution: dict[str, Any], accelerator: Accelerator) -> None:
    recipe = run.math["recipe"]
    roots = Roots.from_json(execution["roots"])
    main = accelerator.is_main_process
    if main:
        write_json(run.attempt / "environment.json", environment())
        if recipe["assets"]:
            ensure_tiny(roots.resolve("cache:tiny"), recipe["assets"])
    accelerator.wait_for_everyone()

    reader, annotations = make_reader(recipe, roots)
    stage1 = _stage1(run, execution)
    if main:
        model = build(run, recipe, roots, stage1, write=True)
    accelerator.wait_for_everyone()
    if not main:
        model = build(run, recipe, roots, stage1, write=False)
    model.to(accelerator.device)

    dataset = make_steps(recipe, reader, annotations, accelerator, execution["micro_batch_size"])
    trainer = Trainer(
        model,
        dataset,
        recipe["optimizer"],
        accelerator,
        lookup_table=reader.processor.lookup_table(),
        workers=execution["workers"],
    )
    # The only use of the global generator: LoRA dropout. Each rank has its own stream.
    torch.manual_seed(named_seed(recipe["seed"], f"dropout of rank {accelerator.process_index}"))
    with (run.attempt / "log.txt" if main else Path(os.devnull)).open("a", encoding="utf-8") as log:
        summary = trainer.train(run.metrics, label=recipe["name"], log=log)
        if main:
            lines = _finish(run, execution, roots, model, reader, annotations, summary)
            log.write("\n".join(lines) + "\n")
            print("\n".join(lines))


def _stage1(run: RunDir, execution: dict[str, Any]) -> RunDir | None:
    """The run that this one starts from; DataError when it is gone, unfinished or another one."""
    if execution["starts_from"] is None:
        return None
    stage1 = RunDir(Path(execution["starts_from"]))
    if not stage1.complete:
        raise DataError(
            f"the stage-1 run {stage1.path} is missing or not complete; `densekit run {run.math['recipe']['name']}` "
            "trains it first"
        )
    if stage1.sha256 != run.math["starts_from"]:
        raise DataError(f"{stage1.path} is not the stage-1 run that {run.path} starts from; its math.json differs")
    return stage1


def _finish(
    run: RunDir,
    execution: dict[str, Any],
    roots: Roots,
    model: DenseConnectorForConditionalGeneration,
    reader: SampleReader,
    annotations: Annotations,
    summary: Summary,
) -> list[str]:
    """Save what was trained, ask the held-out questions, write results and manifest; returns the report's lines."""
    recipe = run.math["recipe"]
    results: dict[str, Any] = {"summary": asdict(summary)}
    outputs = save_results(model, run, recipe, tokenizer_folder(recipe, roots))
    if recipe["probe"]:
        results["probe"] = run_probe(
            model,
            load_tokenizer(tokenizer_folder(recipe, roots)),
            make_encoder(recipe, roots),
            reader.processor,
            roots.resolve(recipe["probe"]["questions"]),
            roots.resolve(recipe["probe"]["images"]),
            seed=recipe["seed"],
        )
    write_json(run.path / "results.json", results)
    write_json(run.path / "manifest.json", _manifest(run, execution, roots, annotations, outputs))
    return report(summary, results, run)


def tokenizer_folder(recipe: dict[str, Any], roots: Roots) -> Path:
    """Where the recipe's tokenizer is: its own folder, or the language model's."""
    models = recipe["models"]
    return roots.resolve(models["tokenizer"] or models["language_model"])


def make_encoder(recipe: dict[str, Any], roots: Roots) -> SampleEncoder:
    """The recipe's template over its tokenizer, under its semantics of ids and labels (ledger L1)."""
    return SampleEncoder(
        tokenizer=load_tokenizer(tokenizer_folder(recipe, roots)),
        template=recipe["data"]["template"],
        semantics=recipe["ledger"]["L1"],
        max_length=recipe["data"]["max_length"],
    )


def make_reader(recipe: dict[str, Any], roots: Roots) -> tuple[SampleReader, Annotations]:
    """The reader of a recipe's samples; DataError when a file of it is missing or wrong."""
    data, models = recipe["data"], recipe["models"]
    tower = roots.resolve(models["vision_tower"])
    config = model_config(roots.resolve(models["language_model"]), tower, recipe["connector"])
    annotations = Annotations.load(roots.resolve(data["annotations"]))
    reader = SampleReader(
        samples=annotations,
        encoder=make_encoder(recipe, roots),
        image_folder=roots.resolve(data["images"]),
        processor=ImageProcessor.from_pretrained(tower, data["image_aspect_ratio"]),
        image_tokens=config.image_tokens,
    )
    return reader, annotations


def make_steps(
    recipe: dict[str, Any],
    reader: SampleReader,
    annotations: Annotations,
    accelerator: Accelerator,
    micro_batch_size: int,
) -> StepDataset:
    """Every optimiser step of the run, in the official order of its reference topology."""
    optimizer = recipe["optimizer"]
    topology = ReferenceTopology.of(recipe["reference"])
    order = OfficialOrder(
        modality_lengths=modality_lengths(annotations),
        topology=topology,
        seed=recipe["seed"],
        group_by_modality=recipe["data"]["group_by_modality_length"],
    )
    length = {"max_steps": optimizer["max_steps"]} if optimizer["max_steps"] else {"epochs": optimizer["epochs"]}
    return StepDataset(
        reader,
        list(iterate_steps(order, **length)),
        num_groups=topology.groups_per_step,
        loss_semantics=recipe["ledger"]["U8"],
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        micro_batch_size=micro_batch_size,
    )


def modality_lengths(annotations: Annotations) -> np.ndarray:
    """Words per sample, negative without an image; DataError names a sample without words."""
    lengths = []
    for sample in annotations:
        try:
            lengths.append(modality_length(sample.conversations, sample.image is not None))
        except DataError as error:
            raise DataError(f"sample {sample.index} (id {sample.entry_id}): {error}") from None
    return np.array(lengths, dtype=np.int64)


def _manifest(
    run: RunDir, execution: dict[str, Any], roots: Roots, annotations: Annotations, outputs: list[Path]
) -> dict[str, Any]:
    recipe = run.math["recipe"]
    folders = {name: roots.resolve(recipe["models"][name]) for name in ("language_model", "vision_tower")}
    folders["tokenizer"] = tokenizer_folder(recipe, roots)
    return {
        "run": run.sha256,
        "starts_from": run.math["starts_from"],
        "environment": read_json(run.attempt / "environment.json"),
        "execution": execution,
        "annotations_sha256": annotations.sha256,
        "models": {name: tree_sha256(folder) for name, folder in folders.items()},
        "init_sha256": file_sha256(run.path / INIT_FILE),
        "metrics_sha256": file_sha256(run.metrics),
        "outputs": {str(path.relative_to(run.path)): file_sha256(path) for path in outputs},
    }


def report(summary: Summary, results: dict[str, Any], run: RunDir) -> list[str]:
    """What the run did, in lines: totals, everything masked, and the held-out figures."""
    lines = [
        f"{summary.steps} steps, {summary.samples} samples, {summary.tokens} tokens "
        f"({summary.supervised_tokens} supervised) in {summary.seconds:.1f} s; "
        f"loss {summary.first_loss:.4f} -> {summary.last_loss:.4f}"
    ]
    if summary.masked_samples or summary.empty_groups or summary.notes:
        noted = ", ".join(f"{name} {count}" for name, count in sorted(summary.notes.items()))
        lines.append(
            f"samples without a supervised token: {summary.masked_samples}; reference groups without one: "
            f"{summary.empty_groups}" + (f"; noted: {noted}" if noted else "")
        )
    probe = results.get("probe", {})
    for name in ("images_in_place", "images_shuffled"):
        if name in probe:
            part = probe[name]
            lines.append(
                f"held-out questions, {name.replace('_', ' ')}: {part['correct']}/{probe['questions']} = "
                f"{part['accuracy']:.3f} (95 % Wilson lower bound {part['wilson_lower']:.3f}; "
                f"majority class {probe['majority_class']:.3f})"
            )
    return [*lines, f"results in {run.path}"]
