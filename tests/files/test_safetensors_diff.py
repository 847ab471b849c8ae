"""Naming the first tensor that differs between two safetensors files, from their bytes alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from densekit.errors import DataError
from densekit.files import safetensors_diff
from densekit.files.safetensors_diff import first_tensor_difference
from tests.support.runs import flip_byte, write_tensors

BASE: dict[str, Any] = {
    "first": np.arange(6, dtype=np.float32).reshape(2, 3),
    "second": np.arange(5, dtype=np.float16),
    "whole": np.array(7, dtype=np.int64),
    "none": np.zeros((0, 3), dtype=np.float32),
}


def compared(folder: Path, other: dict[str, Any]) -> safetensors_diff.TensorDifference | None:
    save_file(BASE, folder / "a.safetensors")
    save_file(other, folder / "b.safetensors", metadata={"note": "its own"})
    return first_tensor_difference(folder / "a.safetensors", folder / "b.safetensors")


def test_equal_tensors_under_other_metadata(tmp_path: Path) -> None:
    assert compared(tmp_path, BASE) is None
    assert (tmp_path / "a.safetensors").read_bytes() != (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("chunk", [16, safetensors_diff.CHUNK])
def test_values_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(safetensors_diff, "CHUNK", chunk)
    other = {name: value.copy() for name, value in BASE.items()}
    other["first"][0, 1] = 9
    other["first"][1, 2] = -0.5
    other["second"][4] = 9
    found = compared(tmp_path, other)
    assert (
        found
        and found.describe() == "tensor first: 2 of 6 values differ; 1 other tensor differs too"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"first": np.arange(6, dtype=np.float32)}, "tensor first: F32 [2, 3] and F32 [6]"),
        ({"second": np.arange(5, dtype=np.int16)}, "tensor second: F16 [5] and I16 [5]"),
        ({"whole": np.array(8, dtype=np.int64)}, "tensor whole: 1 of 1 values differ"),
        ({"none": np.zeros((0, 4), dtype=np.float32)}, "tensor none: F32 [0, 3] and F32 [0, 4]"),
    ],
)
def test_other_shape_dtype_or_scalar(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    found = compared(tmp_path, {**BASE, **change})
    assert found and found.describe() == words


def test_tensor_that_one_file_lacks(tmp_path: Path) -> None:
    found = compared(tmp_path, {name: value for name, value in BASE.items() if name != "second"})
    assert found and found.describe() == f"tensor second: only in {tmp_path / 'a.safetensors'}"
    found = compared(tmp_path, {**BASE, "third": np.zeros(1, dtype=np.float32)})
    assert found and found.describe() == f"tensor third: only in {tmp_path / 'b.safetensors'}"


def test_bf16_is_compared_bit_by_bit(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tensors(tmp_path / name, {"w": ("BF16", [3], np.array([1, 2, 3], dtype=np.uint16))})
    flip_byte(tmp_path / "b", -1)
    found = first_tensor_difference(tmp_path / "a", tmp_path / "b")
    assert found and (found.name, found.values, found.size) == ("w", 1, 3)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[:-1],
        lambda data: data[:20],
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data.replace(b"data_offsets", b"data_0ffsets"),
        lambda data: data.replace(b"[2,3]", b"[2,4]"),
        lambda data: data.replace(b'"shape":[', b'"shape":"'),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, damage: Any) -> None:
    save_file(BASE, tmp_path / "a")
    data = (tmp_path / "a").read_bytes()
    (tmp_path / "b").write_bytes(damage(data))
    assert damage(data) != data
    with pytest.raises(DataError, match=f"{tmp_path}/b is not a complete safetensors file"):
        first_tensor_difference(tmp_path / "a", tmp_path / "b")
