"""A trainer that takes no time, and models and data that pass every check without being any."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.numpy import save
from tokenizers import Tokenizer, models

from densekit.recipes.load import load_recipe
from densekit.runs.layout import RunDir, open_run
from densekit.spec.execution import Execution
from densekit.spec.math import RunMath
from densekit.spec.roots import Roots
from tests.support.files import write_json

STUB = """
import hashlib, json, os, pathlib, signal, sys, time
path = pathlib.Path(sys.argv[1])
def put(name, text):  # whole at once, as the trainer does: others read it meanwhile
    part = path / f".{name}.part"
    part.write_text(text)
    part.replace(path / name)
def status(state, message="", exit_code=0):
    attempt = json.loads((path / "status.json").read_text())["attempt"]
    value = {"state": state, "message": message, "exit_code": exit_code, "attempt": attempt}
    if state == "complete" and not (path / "manifest.json").exists():
        finish()
    put("status.json", json.dumps(value))
    if state == "running":  # a stub has nothing to load
        (path / "attempts" / f"{attempt:04d}" / "log.txt").touch()
def finish():
    (path / "connector.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    value = {"outputs": {"connector.safetensors": digest}, "state": "complete"}
    seal = hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
    put("manifest.json", json.dumps({**value, "sha256": seal}))
with (path / "trained").open("a") as file:
    file.write("x")
"""

RUN_STUB = """
import os, sys
sys.argv.insert(1, sys.argv[-1])
place = os.path.join(sys.argv[-1], "stub.py")
with open(place) as file:
    code = compile(file.read(), place, "exec")
exec(code)
"""
"""What stands in for the whole package in containers and jobs: it runs stub.py of the run
directory.
"""

FAKE_SMI = """#!/bin/sh
cat {place}
"""


def stub_run(folder: Path, script: str, **changes: Any) -> tuple[RunDir, Execution]:
    """A run whose stub trainer runs `script`, with its first attempt open."""
    run = open_run(folder / "runs", stub_math())
    roots = Roots(data=folder / "data", models=folder / "models", cache=folder / "cache")
    execution = Execution(roots=roots, **changes)
    run.new_attempt(execution)
    write_json(run.path / "stub.py", STUB + script)
    return run, execution


def stub_math(**models: str) -> RunMath:
    """The math of a tiny recipe called `mine`, with other models where `models` names them."""
    tiny = load_recipe("tiny_stage1").math()
    changes = {"name": "mine", "models": tiny.models.model_copy(update=models)}
    return RunMath(recipe=tiny.model_copy(update=changes), starts_from=None)


def fake_gpus(folder: Path, *lines: str) -> Path:
    """A folder for PATH whose nvidia-smi tells these lines."""
    place = write_json(folder / "smi" / "told.txt", "\n".join(lines) + "\n")
    program = write_json(folder / "smi" / "nvidia-smi", FAKE_SMI.format(place=place))
    program.chmod(0o755)
    return program.parent


def put_gpus_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, *lines: str) -> None:
    """Let nvidia-smi tell these lines, on a PATH with little else."""
    monkeypatch.setenv("PATH", f"{fake_gpus(folder, *lines)}:/usr/bin:/bin")


A100 = "{index}, NVIDIA A100-SXM4-80GB, 8.0, 81920, {used}, 550.54.15"
V100 = "{index}, Tesla V100-SXM2-32GB, 7.0, 32768, {used}, 535.129.03"
T4 = "{index}, Tesla T4, 7.5, 15360, {used}, 550.54.15"
OLD = "{index}, NVIDIA A100-SXM4-80GB, 8.0, 81920, {used}, 470.82.01"


def cards(kind: str, count: int, *, used: Mapping[int, int] | None = None) -> list[str]:
    """What nvidia-smi tells about `count` GPUs, `used` MiB of some in use."""
    return [kind.format(index=index, used=(used or {}).get(index, 0)) for index in range(count)]


def trainer(script: str) -> Callable[..., list[str]]:
    """What stands in for `local.command`: a process that runs `script`, with `path` and `status()`
    at hand.
    """

    def command(run: RunDir, execution: Execution) -> list[str]:
        return [sys.executable, "-S", "-E", "-c", STUB + script, str(run.path)]

    return command


def entry(
    *, image: str | None = "a.png", question: str = "<image>\nWhat?", answer: str = "A cat."
) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "x", "conversations": turns} | ({"image": image} if image else {})


LLM_CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 4,
}
TOWER_CONFIG = {
    "model_type": "clip_vision_model",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
PREPROCESSOR = {"size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def make_models(folder: Path) -> None:
    """Model folders that hold what is looked for, and no tensor."""
    for name, config in (("llm", LLM_CONFIG), ("tower", TOWER_CONFIG)):
        write_json(folder / name / "config.json", config)
        (folder / name / "model.safetensors").write_bytes(save({}))
    write_json(folder / "tower" / "preprocessor_config.json", PREPROCESSOR)
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "</s>": 1}, merges=[]))
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(folder / "llm" / "tokenizer.json"))
    write_json(folder / "llm" / "tokenizer_config.json", {"eos_token": "</s>"})


STAGE_1 = """\
extends: tiny_stage1
title: mine
models: {language_model: llm, vision_tower: tower}
data: {annotations: one.json, images: images, samples: null}
assets: null
"""
STAGE_2 = """\
extends: tiny_stage2
title: mine
needs: one
models: {language_model: llm, vision_tower: tower}
data: {annotations: two.json, images: images, samples: null}
assets: null
probe: null
"""


def make_pair(folder: Path) -> Path:
    """A stage-1 and a stage-2 recipe with everything they read beside them; returns the second's
    file.
    """
    make_models(folder)
    write_json(folder / "one.json", [entry()] * 3)
    write_json(folder / "two.json", [entry(), entry(image=None, question="Why?")])
    (folder / "images").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "images" / "a.png")
    write_json(folder / "one.yaml", STAGE_1)
    return write_json(folder / "two.yaml", STAGE_2)
