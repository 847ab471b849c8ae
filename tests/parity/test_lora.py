"""A LoRA training recorded from stock transformers and peft is reproduced, under anyone's names."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM, get_cosine_schedule_with_warmup

from densekit.model.preprocess import normalise
from densekit.parity.case import Recording
from densekit.parity.compare import Quantity, statistics
from densekit.parity.computed import pad
from densekit.parity.names import official_name
from densekit.spec.types import IGNORE_INDEX
from densekit.train.step_dataset import SampleReader
from tests.parity.sets import bump, edit_json, failing, run

pytestmark = pytest.mark.ranks

CASE = "clip_dci/lora"
STEPS = 6
PEFT_CONNECTOR = "base_model.model.model.mm_projector."
NAMED = ("grad", "final_params")
"""Entries of lora.json that are objects by parameter name."""


class Stock:
    """The language model under peft and the connector, as stock modules; batches are padded."""

    def __init__(self, recording: Recording, projector: dict[str, Tensor]) -> None:
        torch.manual_seed(5)
        base = LlamaForCausalLM.from_pretrained(
            recording.root / "models" / "llm_tiny", dtype=torch.float32
        )
        names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        config = LoraConfig(
            r=4, lora_alpha=8, lora_dropout=0.0, target_modules=names, task_type="CAUSAL_LM"
        )
        self.peft = get_peft_model(base, config)
        self.adapters = {n: p for n, p in self.peft.named_parameters() if "lora_" in n}
        for name, parameter in self.adapters.items():
            if "lora_B" in name:  # zero, it would leave no gradient for A
                nn.init.normal_(parameter, std=0.02)
        self.connector = nn.Sequential(nn.Linear(96, 64), nn.GELU(), nn.Linear(64, 64))
        self.connector.load_state_dict(projector)
        # Reads the samples and runs the tower; its language model is not used.
        plain = Recording(recording.root, {}, {**recording.arguments, "lora_enable": "False"})
        self.model = plain.model({f"connector.{n}": v for n, v in projector.items()})

    def trainable(self) -> dict[str, nn.Parameter]:
        """Every trainable parameter under peft's names."""
        connector = self.connector.named_parameters()
        return {**self.adapters, **{f"{PEFT_CONNECTOR}{name}": p for name, p in connector}}

    def copies(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.trainable().items()}

    def loss(self, reader: SampleReader, indices: list[int]) -> Tensor:
        """Mean cross-entropy over the labels of a right-padded batch."""
        embedded, labels = [], []
        table = torch.from_numpy(reader.processor.lookup_table())
        for index in indices:
            sequence, _ = reader.sequence(index)
            ids = torch.from_numpy(sequence.input_ids)
            embeddings = self.peft.get_input_embeddings()(ids.clamp(min=0))
            image = reader.image(index)
            if image is not None:
                pixels = normalise(torch.from_numpy(image.pixels)[None], table)
                features = self.connector(self.model.encode_images(pixels))[0]
                slots = ids < 0
                embeddings = embeddings.masked_scatter(slots[:, None], features[: int(slots.sum())])
            embedded.append(embeddings)
            labels.append(sequence.labels)
        padded = nn.utils.rnn.pad_sequence(embedded, batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones(len(part)) for part in embedded], True).long()
        targets = torch.from_numpy(pad(labels, IGNORE_INDEX))
        loss = self.peft(inputs_embeds=padded, attention_mask=mask, labels=targets).loss
        # As recorded: a text-only batch gives the connector zero gradients, not none, so that
        # AdamW's momentum moves it.
        return loss + 0.0 * self.connector(torch.zeros(1, 96)).sum()


def _record_batch(stock: Stock, reader: SampleReader) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The golden batch: loss and gradients before the first step."""
    loss = stock.loss(reader, list(range(len(reader.samples))))
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in stock.trainable().items()}  # type: ignore[union-attr]
    total = torch.stack([value.norm() for value in gradients.values()]).norm()
    record = {
        "loss": loss.item(),
        "trainable": list(gradients),
        "grad": {name: statistics(value) for name, value in gradients.items()},
        "grad_total_l2": total.item(),
    }
    return record, gradients


def _record_steps(stock: Stock, recording: Recording) -> list[dict[str, Any]]:
    reader = recording.reader(recording.root / "data" / "stage2_train.json", stock.model)
    connector = list(stock.connector.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": list(stock.adapters.values()), "lr": 1e-3}, {"params": connector, "lr": 2e-4}],
        weight_decay=0.0,
    )
    scheduler = get_cosine_schedule_with_warmup(optimizer, math.ceil(STEPS * 0.03), STEPS)
    records = []
    for step in recording.steps(reader.samples)[:STEPS]:  # type: ignore[arg-type]
        indices = [int(i) for i in step.groups[0]]
        loss = stock.loss(reader, indices)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(list(stock.trainable().values()), 1.0)
        records.append(
            {
                "loss": loss.item(),
                "lr": [group["lr"] for group in optimizer.param_groups],
                "grad_norm_preclip": norm.item(),
                "ids": [reader.samples[i].entry_id for i in indices],
            }
        )
        optimizer.step()
        scheduler.step()
    return records


@pytest.fixture(scope="module")
def recorded(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in the layout of the recordings, written by stock code under peft's own names."""
    root = tmp_path_factory.mktemp("lora")
    for name in ("data", "models", "tokens.json"):
        (root / name).symlink_to(golden / name)
    case = root / "clip_dci"
    case.mkdir()
    argv = json.loads((golden / "clip_dci" / "stage2.json").read_text())["argv"]
    argv[argv.index("--max_steps") + 1] = str(STEPS)
    argv += ["--lora_enable", "True", "--lora_r", "4", "--lora_alpha", "8", "--lora_dropout", "0.0"]
    argv += ["--mm_projector_lr", "2e-4"]
    (case / "lora.json").write_text(json.dumps({"argv": argv}))
    recording = Recording.read(root, case / "lora.json")
    stock = Stock(recording, load_file(golden / "clip_dci/projector_after_stage1.safetensors"))
    save_file(stock.copies(), case / "lora_init.safetensors")
    reader = recording.reader(root / "data" / "stage2_batch.json", stock.model)
    record, gradients = _record_batch(stock, reader)
    save_file(gradients, case / "lora_grads.safetensors")
    record["steps"] = _record_steps(stock, recording)
    final = stock.copies()
    save_file(final, case / "lora_final.safetensors")
    record["final_params"] = {name: statistics(value) for name, value in final.items()}
    (case / "lora.json").write_text(json.dumps({"argv": argv, **record}))
    return root


@pytest.fixture
def copied(recorded: Path, tmp_path: Path) -> Path:
    """A copy of the case to change."""
    shutil.copytree(recorded, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


def _rename(root: Path, rename: Callable[[str], str]) -> None:
    """Every name of the recording through `rename`."""
    case = root / "clip_dci"

    def change(record: dict[str, Any]) -> None:
        record["trainable"] = [rename(name) for name in record["trainable"]]
        for key in NAMED:
            record[key] = {rename(name): value for name, value in record[key].items()}

    edit_json(case / "lora.json", change)
    for path in case.glob("*.safetensors"):
        save_file({rename(name): value for name, value in load_file(path).items()}, path)


def _densekit_name(name: str) -> str:
    official = official_name(name)
    if official.startswith("model.mm_projector."):
        return official.replace("model.mm_projector.", "projector.")
    return f"language_model.{official}".replace(".weight", ".default.weight")


@pytest.fixture(scope="module")
def figures(recorded: Path) -> dict[str, Quantity]:
    return run(recorded, CASE)


def test_recording_under_peft_names_is_reproduced(
    recorded: Path, figures: dict[str, Quantity]
) -> None:
    record = json.loads((recorded / "clip_dci" / "lora.json").read_text())
    prefix = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert prefix in record["trainable"] and f"{PEFT_CONNECTOR}2.bias" in record["final_params"]
    assert not {name: value for name, value in figures.items() if not value.ok}
    assert {
        "trainable",
        "loss",
        "gradients",
        "gradient_statistics",
        "order",
        "curve_loss",
        "curve_grad_norm",
        "curve_lr",
        "final_statistics",
        "final_lora",
        "final_weights",
    } <= set(figures)


def test_recording_under_densekit_names_gives_the_same_figures(
    copied: Path, figures: dict[str, Quantity]
) -> None:
    _rename(copied, _densekit_name)
    assert run(copied, CASE) == figures


def test_recording_under_saved_names_and_with_a_connector_file_gives_the_same_figures(
    copied: Path, figures: dict[str, Quantity]
) -> None:
    _rename(copied, lambda name: name.replace(".default.", "."))
    for when in ("init", "final"):
        path = copied / "clip_dci" / f"lora_{when}.safetensors"
        weights = load_file(path)
        alone = {name: value for name, value in weights.items() if "mm_projector" in name}
        save_file({n: value for n, value in weights.items() if n not in alone}, path)
        bare = {name.removeprefix(PEFT_CONNECTOR): value for name, value in alone.items()}
        save_file(bare, path.with_name(f"lora_projector_{when}.safetensors"))
    assert run(copied, CASE) == figures
    (copied / "clip_dci" / "lora_projector_init.safetensors").unlink()
    assert "lora_projector_init.safetensors does not exist" in failing(copied, CASE)["case"]


def test_changed_numbers_fail_their_quantities(copied: Path) -> None:
    case = copied / "clip_dci"
    connector, adapter = f"{PEFT_CONNECTOR}2.bias", "lora_B.default.weight"
    changes: dict[str, tuple[str | int, ...]] = {
        "loss": ("loss",),
        "curve_loss": ("steps", 3, "loss"),
        "gradient_statistics": ("grad", connector, "l2"),
        "final_statistics": ("final_params", connector, "l2"),
        "trainable": ("trainable", 0),
    }

    def change(record: dict[str, Any]) -> None:
        for keys in changes.values():
            bump(record, keys)

    edit_json(case / "lora.json", change)
    for file, name in (("grads", adapter), ("final", adapter), ("final", connector)):
        path = case / f"lora_{file}.safetensors"
        weights = load_file(path)
        changed = next(key for key in weights if key.endswith(name))
        save_file({**weights, changed: weights[changed] + 0.05}, path)
    expected = {*changes, "gradients", "final_lora", "final_weights"}
    assert set(failing(copied, CASE)) == expected


@pytest.mark.parametrize("part", ["lora_A.default.weight", "mm_projector.0.weight"])
def test_changed_initial_weight_is_noticed(copied: Path, part: str) -> None:
    path = copied / "clip_dci" / "lora_init.safetensors"
    weights = load_file(path)
    name = next(key for key in weights if key.endswith(part))
    save_file({**weights, name: weights[name] + 0.05}, path)
    assert {"loss", "curve_loss"} <= set(failing(copied, CASE))


def test_weights_without_their_json_are_a_failing_case(copied: Path) -> None:
    (copied / "clip_dci" / "lora.json").unlink()
    assert "lora.json" in failing(copied, CASE)["case"]
