"""Run directories without a trainer: real files in the real formats, and numbers that depend on
everything they should.

`make_world` writes data and models; a test changes a file in a copy of it. `train` then "trains":
its losses are drawn from a hash of all that has had an influence so far, so that two runs diverge
where, and only where, real ones would.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from densekit.batching.order import OfficialOrder
from densekit.batching.run_order import certify
from densekit.batching.steps import iterate_steps
from densekit.data.annotations import Annotations
from densekit.files.hashing import file_sha256
from densekit.files.json_files import write_json
from densekit.runs.checkpoint import STATE_FILE, CheckpointState
from densekit.runs.environment import ENVIRONMENT_FILE, Environment
from densekit.runs.layout import (
    CERTIFICATE_FILE,
    CONNECTOR_FILE,
    INIT_FILE,
    RunDir,
    open_run,
)
from densekit.runs.manifest import MANIFEST_FILE, complete_manifest, hash_models, start_manifest
from densekit.runs.records import (
    FEED_FILE,
    METRICS_FILE,
    Position,
    Records,
    StepMetrics,
    read_steps,
)
from densekit.runs.results import Results, Summary
from densekit.spec.execution import Execution
from densekit.spec.math import Math, RunMath
from densekit.spec.roots import Roots
from densekit.spec.saved_file import SavedFile

ENTRIES = 24
STEPS = 6
TEXT_ONLY = 3  # every third entry
RECIPE: dict[str, Any] = {
    "name": "made",
    "stage": 2,
    "needs": None,
    "models": {
        "language_model": "models:lm",
        "vision_tower": "models:tower",
        "tokenizer": None,
        "connector": None,
    },
    "connector": {"kind": "dci", "layers": [], "groups": [[0, 1], [2, 3]]},
    "data": {
        "annotations": "data:train.json",
        "images": "data:images",
        "samples": None,
        "template": "v1",
        "image_aspect_ratio": "pad",
    },
    "optimizer": {"learning_rate": 0.001, "warmup_ratio": 0.0},
    "lora": None,
    "global_batch_size": 4,
    "reference": {"gpus": 2, "per_device_batch_size": 2, "grad_accum_steps": 1},
    "seed": 42,
    "ledger": {"L1": "faithful"},
    "assets": None,
    "probe": None,
}
ENVIRONMENT: dict[str, Any] = {
    "densekit": "0.1.0",
    "git": {"commit": "c" * 40, "dirty": False},
    "python": "3.11.7",
    "platform": "Linux",
    "processors": 2,
    "packages": {"transformers": "5.22.0", "torch": "2.13.0", "pytest": "9.0.0"},
    "lock": {"train.txt": "0" * 64},
    "image": None,
    "devices": [],
    "cpu": {"model": "A CPU", "flags": ["avx512f", "sse2"]},
    "variables": {},
}


def make_world(path: Path) -> Path:
    """Annotations, images, a language model with its tokenizer, and a tower, under `data` and
    `models`.
    """
    images = path / "data" / "images"
    images.mkdir(parents=True)
    entries = []
    for number in range(ENTRIES):
        question = f"What is in picture {number}?"
        entry: dict[str, Any] = {"id": "same"}
        if number % TEXT_ONLY:
            entry["image"] = f"{number}.png"
            (images / f"{number}.png").write_bytes(b"image" + bytes([number]))
            question = f"<image>\n{question}"
        entry["conversations"] = [
            {"from": "human", "value": question},
            {"from": "gpt", "value": f"Thing {number}."},
        ]
        entries.append(entry)
    (path / "data" / "train.json").write_text(json.dumps(entries), encoding="utf-8")
    for folder, seed in (("lm", 1), ("tower", 2)):
        place = path / "models" / folder
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}", encoding="utf-8")
        values = np.arange(12, dtype=np.uint16) + seed
        write_tensors(
            place / "model.safetensors",
            {"embed.weight": ("BF16", [3, 4], values), "norm.weight": ("BF16", [4], values[:4])},
        )
    (path / "models" / "lm" / "tokenizer.model").write_bytes(b"\x01tokens")
    return path


def copy_world(world: Path, path: Path) -> Path:
    """A second world, equal to the first, to change something in."""
    return Path(shutil.copytree(world, path))


def write_tensors(
    path: Path,
    tensors: Mapping[str, tuple[str, list[int], np.ndarray]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """A safetensors file of (dtype, shape, values)."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, (dtype, shape, values) in tensors.items():
        end = len(data) + values.nbytes
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), end]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def flip_byte(path: Path, place: int) -> None:
    """Change one bit of one byte of a file (negative: counted from its end)."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def change_entry(world: Path, index: int) -> None:
    """Give one entry another answer of the same number of words."""
    path = world / "data" / "train.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    entries[index]["conversations"][1]["value"] = "Else now."
    path.write_text(json.dumps(entries), encoding="utf-8")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe or environment with some values changed, given as nested mappings."""
    result = {**base}
    for name, value in changes.items():
        old = result.get(name)
        result[name] = (
            merged(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
        )
    return result


def made_math(recipe: Mapping[str, Any] | None = None) -> Math:
    """RECIPE, some values of it changed, as the trainer reads it."""
    return Math.model_validate(merged(RECIPE, recipe or {}))


def train(
    world: Path,
    runs: Path,
    *,
    recipe: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    execution: Mapping[str, Any] | None = None,
    stop_after: int | None = None,
) -> Path:
    """A run directory over a world; `stop_after` steps it is preempted with a checkpoint, else it
    completes.
    """
    math = made_math(recipe)
    roots = Roots(data=world / "data", models=world / "models", cache=world / "cache")
    annotations = Annotations.load(roots.resolve(math.data.annotations))
    inputs = {"annotations": annotations.sha256}
    run = open_run(runs, RunMath(recipe=math, starts_from=None, inputs=inputs))
    how = Execution(roots=roots, **(execution or {}))
    where = Environment.model_validate(merged(ENVIRONMENT, environment or {}))
    attempt = run.new_attempt(how)
    write_json(attempt / ENVIRONMENT_FILE, where.as_json())

    order = OfficialOrder(
        modality_lengths=np.ones(len(annotations), dtype=np.int64),
        topology=math.reference,
        seed=math.seed,
        group_by_modality=False,
    )
    steps = list(iterate_steps(order, epochs=math.optimizer.epochs))
    certificate = certify(
        order, [sample.sample_id for sample in annotations], epochs=math.optimizer.epochs
    )
    write_json(run.path / CERTIFICATE_FILE, certificate.as_json())
    folders = {
        "language_model": roots.resolve("models:lm"),
        "vision_tower": roots.resolve("models:tower"),
    }
    draw = np.frombuffer(hashlib.sha256(f"init {math.seed}".encode()).digest(), dtype=np.float32)
    write_tensors(run.path / INIT_FILE, {"connector.0.weight": ("F32", [8], draw)})
    started = start_manifest(
        math=run.math,
        environment=where,
        execution=how,
        attempts=run.status.attempt,
        certificate=certificate,
        annotations_sha256=annotations.sha256,
        models=hash_models({**folders, "tokenizer": folders["language_model"]}),
        init=run.path / INIT_FILE,
    )
    write_json(run.path / MANIFEST_FILE, started.as_json())
    run.set_status("running")

    state = _start_state(math, folders, where, how, run.path / INIT_FILE)
    with Records(run.path, Position(chain=run.sha256)) as records:
        for step in steps[:stop_after]:
            samples = [annotations[int(index)] for group in step.groups for index in group]
            images = [_image_digest(roots, math, sample.image) for sample in samples]
            ids = [sample.sample_id for sample in samples]
            lr = math.optimizer.learning_rate * (1 - step.index / len(steps))
            state = _hash(state, *ids, *map(str, images))
            rounding = 1e-9 * how.world_size
            words = sum(len(sample.conversations[0]["value"]) for sample in samples)
            record = StepMetrics(
                step=step.index + 1,
                loss=2 + 0.1 * _unit(state) + rounding,
                lr=lr,
                grad_norm=1 + 0.1 * _unit(state + "g") + rounding,
                updated=True,
                overflows=0,
                samples=len(samples),
                tokens=words * _per_word(folders),
                supervised_tokens=2 * len(samples),
                masked_samples=0,
                seconds=0.1,
            )
            records.append(record, ids, images)
            state = _hash(state, str(lr), str(math.optimizer.eps))
        position = records.position()
    if stop_after is not None:
        write_checkpoint(run.path, position)
        run.set_status("preempted", message="asked to stop", exit_code=75)
        return run.path
    outputs = _write_outputs(run, state)
    write_json(
        run.path / MANIFEST_FILE,
        complete_manifest(started, run=run.path, outputs=outputs).as_json(),
    )
    run.set_status("complete")
    return run.path


def write_checkpoint(run: Path, position: Position | None = None) -> Path:
    """A checkpoint of one rank, after the steps on record or at an earlier `position` of them."""
    position = position or position_after(run, len(read_steps(run / METRICS_FILE)))
    step = position.steps
    folder = run / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    rank = folder / "rank-0000.safetensors"
    ones = {"weight:connector.0.weight": ("F32", [2], np.ones(2, dtype=np.float32))}
    write_tensors(rank, ones, {"fragments": '{"connector.0.weight": [0, 2]}'})
    state = CheckpointState(
        run=RunDir(run).sha256,
        step=step,
        optimizer_steps=step,
        overflows_in_a_row=0,
        summary=Summary(steps=step),
        records=position,
        scaler=None,
        parameters={"connector.0.weight": [2]},
        world_size=1,
        zero_stage=0,
        dtype="fp32",
        files={rank.name: SavedFile(sha256=file_sha256(rank), bytes=rank.stat().st_size)},
    )
    write_json(folder / STATE_FILE, state.as_json())
    return folder


def position_after(run: Path, steps: int) -> Position:
    """Where the records of a run end after so many steps."""
    sizes = [
        sum(len(line) for line in (run / name).read_bytes().splitlines(keepends=True)[:steps])
        for name in (METRICS_FILE, FEED_FILE)
    ]
    chain = read_steps(run / METRICS_FILE)[steps - 1].chain if steps else RunDir(run).sha256
    return Position(steps=steps, metrics_bytes=sizes[0], feed_bytes=sizes[1], chain=chain)


def _start_state(
    math: Math,
    folders: dict[str, Path],
    environment: Environment,
    execution: Execution,
    init: Path,
) -> str:
    """Everything that bears on the first loss, short of the samples."""
    files = [init, folders["language_model"] / "tokenizer.model"]
    files += [folder / "model.safetensors" for folder in folders.values()]
    versions = [environment.packages[name] for name in ("transformers", "torch")]
    model = json.dumps([math.connector.model_dump(), math.data.template, execution.dtype])
    return _hash(*map(file_sha256, files), *versions, model)


def _image_digest(roots: Roots, math: Math, image: str | None) -> str | None:
    return None if image is None else file_sha256(roots.resolve(math.data.images) / image)[:16]


def _per_word(folders: dict[str, Path]) -> int:
    """Tokens a word has under this tokenizer: its first byte."""
    return (folders["language_model"] / "tokenizer.model").read_bytes()[0]


def _write_outputs(run: RunDir, state: str) -> list[Path]:
    values = np.frombuffer(bytes.fromhex(state), dtype=np.float32)
    path = run.path / CONNECTOR_FILE
    write_tensors(path, {"0.weight": ("F32", [8], values)})
    return [path, Results(summary=Summary()).write(run.path)]


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _unit(text: str) -> float:
    """A number in [0, 1) drawn from a text."""
    return int(_hash(text)[:12], 16) / 16**12
