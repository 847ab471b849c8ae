"""A trainer that takes no time, and models and data that pass every check without being any."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models

from densekit.run.layout import RunDir

STUB = """
import json, os, pathlib, signal, sys, time
path = pathlib.Path(sys.argv[1])
def status(state, message="", exit_code=0):
    attempt = json.loads((path / "status.json").read_text())["attempt"]
    value = {"state": state, "message": message, "exit_code": exit_code, "attempt": attempt}
    (path / "status.json").write_text(json.dumps(value))
with (path / "trained").open("a") as file:
    file.write("x")
"""


def trainer(script: str) -> Callable[..., list[str]]:
    """What stands in for `local.command`: a process that runs `script`, with `path` and `status()` at hand."""

    def command(run: RunDir, execution: Mapping[str, Any]) -> list[str]:
        return [sys.executable, "-S", "-E", "-c", STUB + script, str(run.path)]

    return command


def execution(**changes: Any) -> dict[str, Any]:
    """An execution.json of one process on CPU, as far as launchers read it."""
    values = {"device": "cpu", "gpus": 1, "nodes": 1, "zero_stage": 0, "threads": 1, "starts_from": None}
    return {**values, **changes}


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def entry(*, image: str | None = "a.png", question: str = "<image>\nWhat?", answer: str = "A cat.") -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "x", "conversations": turns} | ({"image": image} if image else {})


def make_models(folder: Path) -> None:
    """Model folders that hold what is looked for and nothing in it."""
    for name in ("llm", "tower"):
        write_json(folder / name / "config.json", {})
        (folder / name / "model.safetensors").write_bytes(b"")
    write_json(folder / "tower" / "preprocessor_config.json", {})
    Tokenizer(models.BPE(vocab={"a": 0}, merges=[])).save(str(folder / "llm" / "tokenizer.json"))


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
    """A stage-1 and a stage-2 recipe with everything they read beside them; returns the second's file."""
    make_models(folder)
    write_json(folder / "one.json", [entry()] * 3)
    write_json(folder / "two.json", [entry(), entry(image=None, question="Why?")])
    write_json(folder / "images" / "a.png", "")
    write_json(folder / "one.yaml", STAGE_1)
    return write_json(folder / "two.yaml", STAGE_2)
