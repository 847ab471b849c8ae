"""Parity with the recorded numbers, and that any changed, missing or unreadable number is noticed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from densekit.errors import DataError
from densekit.parity.compare import Quantities
from densekit.parity.report import find_cases, run_parity

pytestmark = pytest.mark.ranks

SHARED = ("data", "models", "tokens.json")


@pytest.fixture(scope="module")
def result(golden: Path) -> dict:
    return run_parity(golden, progress=False)


def test_the_compact_set_holds(result: dict) -> None:
    off = {
        f"{case} {name}": values
        for case, quantities in result["cases"].items()
        for name, values in quantities.items()
        if not values["ok"]
    }
    assert not off and result["ok"]


def test_every_kind_of_case_ran(result: dict) -> None:
    assert {"clip_dci/stage1", "clip_dci/stage2", "clip_sti/stage2", "siglip_dci/stage2"} <= set(
        result["cases"]
    )
    assert {
        "sampler",
        "lora",
        "extra/clip_dci_extra",
        "extra/image_preprocess",
        "extra/probes",
    } <= set(result["cases"])
    stage = result["cases"]["clip_dci/stage2"]
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
        assert stage[name]["tolerance"] == tolerance, name


def _copy(golden: Path, target: Path, *folders: str) -> Path:
    for name in (*SHARED, *folders):
        source = golden / name
        shutil.copytree(source, target / name) if source.is_dir() else shutil.copy(
            source, target / name
        )
    return target


def _failures(root: Path, case: str) -> dict[str, str]:
    checks = dict(find_cases(root))
    from densekit.parity.compare import run_case

    return {
        name: values.get("error", "")
        for name, values in run_case(checks[case]).items()
        if not values["ok"]
    }


def _edit_json(path: Path, change: Callable[[dict], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def _edit_npz(path: Path, key: str, change: Callable[[np.ndarray], None]) -> None:
    arrays = dict(np.load(path))
    change(arrays[key])
    np.savez(path, **arrays)


def _bump(array: np.ndarray) -> None:
    flat = array.reshape(-1)
    flat[flat.size // 2] += 1 if array.dtype.kind in "iub" and array.dtype != bool else 0.01
    if array.dtype == bool:
        flat[flat.size // 2] ^= True


def _change(*keys: str | int, by: float = 0.01) -> Callable[[dict], None]:
    def change(value: dict) -> None:
        for key in keys[:-1]:
            value = value[key]  # type: ignore[index]
        old = value[keys[-1]]  # type: ignore[index]
        value[keys[-1]] = (
            "other" if isinstance(old, str) else old + (1 if isinstance(old, int) else by)
        )  # type: ignore[index]

    return change


GRAD = "model.mm_projector.0.weight"
JSON_CHANGES = {
    "loss": ("loss",),
    "steps' loss": ("steps", 7, "loss"),
    "steps' rate": ("steps", 7, "lr", 0),
    "steps' norm": ("steps", 19, "grad_norm_preclip"),
    "steps' ids": ("steps", 3, "ids", 1),
    "order": ("order", 5, 0),
    "log": ("log", 4, "loss"),
    "log's epoch": ("log", 4, "epoch"),
    "supervised": ("n_supervised", 2),
    "valid": ("n_valid", 0),
    "gradient sum": ("grad", GRAD, "sum"),
    "gradient value": ("grad", GRAD, "first8", 3),
    "total gradient": ("grad_total_l2",),
    "hidden states": ("vision", "hidden_state_l2", 24),
    "dense": ("vision", "dense", "first8", 2),
    "groups": ("param_groups", 0, "numel"),
    "final": ("final_params", GRAD, "abs_sum"),
}


@pytest.fixture(scope="module")
def stage1(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _copy(golden, tmp_path_factory.mktemp("recorded"), "clip_dci")


@pytest.fixture
def record(stage1: Path) -> Path:
    """A stage-1 record that is put back after the test."""
    path = stage1 / "clip_dci" / "stage1.json"
    kept = path.read_text()
    yield path  # type: ignore[misc]
    path.write_text(kept)


@pytest.mark.parametrize("name", JSON_CHANGES)
def test_a_changed_number_in_the_json_is_noticed(stage1: Path, record: Path, name: str) -> None:
    _edit_json(record, _change(*JSON_CHANGES[name]))
    assert _failures(stage1, "clip_dci/stage1")


def test_a_changed_number_in_any_array_is_noticed(stage1: Path) -> None:
    path = stage1 / "clip_dci" / "stage1.npz"
    kept = path.read_bytes()
    unnoticed = []
    # What is derived from the tokenizer alone is not in the compact set.
    keys = [key for key in np.load(path).files if not key.startswith("sample")]
    index_only = {"vision/feat_patch_index", "out/vocab_cols", "out/positions", "out/full_row_pos"}
    for key in sorted(set(keys) - index_only)[::2]:
        _edit_npz(path, key, _bump)
        if not _failures(stage1, "clip_dci/stage1"):
            unnoticed.append(key)
        path.write_bytes(kept)
    assert not unnoticed


@pytest.mark.parametrize("file", ["stage1_grads", "projector_init", "projector_after_stage1"])
def test_a_changed_weight_or_gradient_is_noticed(stage1: Path, file: str) -> None:
    path = stage1 / "clip_dci" / f"{file}.safetensors"
    kept = path.read_bytes()
    weights = load_file(path)
    _bump(weights["2.weight"] if "2.weight" in weights else next(iter(weights.values())))
    save_file(weights, path)
    assert _failures(stage1, "clip_dci/stage1")
    path.write_bytes(kept)


def test_sampler_changes_are_noticed(golden: Path, tmp_path: Path) -> None:
    root = _copy(golden, tmp_path, "sampler")
    assert not _failures(root, "sampler")
    path = root / "sampler" / "sampler.json"
    for keys in (
        ("cases", 3, "order", 4),
        ("split_to_even_chunks", 0, "chunks", 0, 1),
        ("stage2_train_lengths", 2),
    ):
        kept = path.read_text()
        _edit_json(path, _change(*keys))
        assert _failures(root, "sampler"), keys
        path.write_text(kept)


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage"])
def test_a_missing_or_unreadable_file_is_a_failure(stage1: Path, damage: str) -> None:
    for name in (
        "stage1.json",
        "stage1.npz",
        "stage1_grads.safetensors",
        "projector_init.safetensors",
    ):
        path = stage1 / "clip_dci" / name
        kept = path.read_bytes()
        path.unlink() if damage == "missing" else path.write_bytes(
            b"" if damage == "empty" else b"\x00garbage"
        )
        failures = _failures(stage1, "clip_dci/stage1")
        path.write_bytes(kept)
        assert failures.get("case"), (name, failures)


def test_unknown_and_empty_folders_are_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no recorded case"):
        run_parity(tmp_path, progress=False)
    with pytest.raises(DataError, match="is not a folder"):
        run_parity(tmp_path / "nowhere", progress=False)
    (tmp_path / "clip_xyz").mkdir()
    assert not run_parity(tmp_path, progress=False)["ok"]


def test_only_the_fixed_list_is_unsupported(golden: Path, tmp_path: Path) -> None:
    root = _copy(golden, tmp_path, "lora")
    (root / "anyres").mkdir()
    result = run_parity(root, progress=False)
    assert result["unsupported"] == ["anyres"] and result["ok"] and set(result["cases"]) == {"lora"}


def test_comparisons_fail_on_shape_and_nan() -> None:
    quantities = Quantities()
    quantities.close("shape", np.zeros(3), np.zeros(4), 1.0)
    quantities.close("nan", float("nan"), 1.0, 1.0)
    quantities.close("fine", 1.0, 1.5, 1.0)
    quantities.exact("list", [1, 2], [1, 3])
    assert {name: values["ok"] for name, values in quantities.values.items()} == {
        "shape": False,
        "nan": False,
        "fine": True,
        "list": False,
    }
