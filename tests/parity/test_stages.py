"""The compact set holds, and every changed, missing or unreadable number of a stage is noticed."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from densekit.parity.find import Kind
from densekit.parity.report import Report, run_parity
from tests.parity.sets import bump, copy_set, edit_json, failing

pytestmark = pytest.mark.ranks

CASE = "clip_dci/stage1"
GRAD = "model.mm_projector.0.weight"
# What is changed in stage1.json, by the quantity that has to fail.
JSON_CHANGES: dict[str, list[tuple[str | int, ...]]] = {
    "loss": [("loss",), ("loss_f64_from_logits",)],
    "curve_loss": [("steps", 7, "loss")],
    "curve_lr": [("steps", 7, "lr", 0)],
    "curve_grad_norm": [("steps", 19, "grad_norm_preclip")],
    "order": [("steps", 3, "ids", 1), ("order", 5, 0)],
    "log": [("log", 4, "loss"), ("log", 4, "learning_rate")],
    "log_epoch": [("log", 4, "epoch")],
    "labels": [("n_supervised", 2), ("n_valid", 0)],
    "gradient_statistics": [("grad", GRAD, "sum"), ("grad", GRAD, "first8", 3)],
    "gradients": [("grad_total_l2",)],
    "trainable": [("trainable", 1)],
    "hidden_states_norms": [("vision", "hidden_state_l2", 24)],
    "dense_features_statistics": [("vision", "dense", "first8", 2)],
    "optimizer": [("param_groups", 0, "numel")],
    "final_statistics": [("final_params", GRAD, "abs_sum")],
}
ROUNDS = max(map(len, JSON_CHANGES.values()))
# Which array of stage1.npz belongs to which quantity.
ARRAY_CHANGES = {
    "input_ids": ["batch/input_ids", "batch/attention_mask"],
    "labels": ["batch/labels", "mm/labels", "mm/attention_mask"],
    "pixels": ["batch/pixel_values"],
    "pixel_statistics": ["batch/pixel_values_mean64", "batch/pixel_values_std64"],
    "dense_features": ["vision/selected", "vision/dense_features"],
    "dense_features_norms": ["vision/dense_features_token_l2"],
    "projector_output": ["vision/projector_out"],
    "projector_output_norms": ["vision/projector_out_token_l2"],
    "input_embeddings": ["mm/inputs_embeds_token_l2"],
    "logits": ["out/logits_cols", "out/logsumexp", "out/full_row"],
    "argmax": ["out/argmax"],
    "token_losses": ["out/token_ce"],
}
# They say where something was recorded; and what needs the tokenizer is not in the compact set.
INDICES = {"vision/feat_patch_index", "out/vocab_cols", "out/positions", "out/full_row_pos"}


@pytest.fixture(scope="module")
def report(golden: Path) -> Report:
    return run_parity(golden, progress=False)


def test_compact_set_holds(report: Report) -> None:
    off = {name: q for case in report.cases.values() for name, q in case.items() if not q.ok}
    assert not off and report.ok and not report.unsupported
    assert report.not_recorded == ["LoRA runs", "tokenization", "tokenizers"]
    assert set(get_args(Kind)) > set(report.not_recorded[:2])


def test_stage_has_every_quantity_at_its_tolerance(report: Report) -> None:
    stage = report.cases["clip_dci/stage2"]
    for name, tolerance in {
        "input_ids": 0,
        "labels": 0,
        "pixels": 0,
        "order": 0,
        "dense_features": 5e-5,
        "projector_output": 5e-5,
        "logits": 5e-5,
        "loss": 1e-5,
        "gradients": 1e-5,
        "curve_loss": 1e-4,
    }.items():
        assert stage[name].tolerance == tolerance, name


@pytest.fixture(scope="module")
def stage1(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_set(golden, tmp_path_factory.mktemp("recorded"), "clip_dci")


@pytest.fixture
def folder(stage1: Path) -> Iterator[Path]:
    """The case's folder; its files are put back after the test."""
    folder = stage1 / "clip_dci"
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    yield folder
    for path, content in kept.items():
        path.write_bytes(content)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_changed_number_in_the_json_fails_its_quantity(folder: Path, number: int) -> None:
    changes = {name: keys[number] for name, keys in JSON_CHANGES.items() if number < len(keys)}

    def change(record: dict) -> None:
        for keys in changes.values():
            bump(record, keys, 1e-5 if keys[-1] == "learning_rate" else 0.01)

    edit_json(folder / "stage1.json", change)
    assert set(failing(folder.parent, CASE)) == set(changes)


@pytest.mark.parametrize("number", range(max(map(len, ARRAY_CHANGES.values()))))
def test_changed_number_in_an_array_fails_its_quantity(folder: Path, number: int) -> None:
    path = folder / "stage1.npz"
    arrays = dict(np.load(path))
    known = {key for keys in ARRAY_CHANGES.values() for key in keys}
    assert {key for key in arrays if not key.startswith("sample")} - INDICES == known
    changes = {name: keys[number] for name, keys in ARRAY_CHANGES.items() if number < len(keys)}
    for key in changes.values():
        _bump(arrays[key])
    np.savez(path, **arrays)
    assert set(changes) <= set(failing(folder.parent, CASE))


def _bump(array: np.ndarray) -> None:
    flat = array.reshape(-1)
    if array.dtype == bool:
        flat[flat.size // 2] ^= True
    else:
        flat[flat.size // 2] += 1 if array.dtype.kind in "iu" else 0.01


@pytest.mark.parametrize(
    ("file", "quantity"),
    [
        ("stage1_grads", "gradients"),
        ("projector_init", "projector_output"),
        ("projector_after_stage1", "final_weights"),
    ],
)
def test_changed_weight_or_gradient_fails_its_quantity(
    folder: Path, file: str, quantity: str
) -> None:
    path = folder / f"{file}.safetensors"
    weights = load_file(path)
    _bump(weights[max(weights)])
    save_file(weights, path)
    assert quantity in failing(folder.parent, CASE)


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage"])
@pytest.mark.parametrize(
    "name", ["stage1.json", "stage1.npz", "stage1_grads.safetensors", "projector_init.safetensors"]
)
def test_missing_or_unreadable_file_fails_the_case(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else b"\x00garbage")
    assert "\n" not in failing(folder.parent, CASE)["case"]


def test_missing_entry_fails_the_case(folder: Path) -> None:
    edit_json(folder / "stage1.json", lambda record: record.pop("grad_total_l2"))
    assert "stage1.json has no `grad_total_l2`" in failing(folder.parent, CASE)["case"]
