"""Headers of safetensors files, and what is found in their place."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from densekit.errors import DataError
from densekit.files.safetensors_header import read_header

DATA = save({"b": np.zeros((2, 3), np.float16), "a": np.zeros(4, np.float32)})
OTHERS = {
    "pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "web page": b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "pickle": b"PK\x03\x04" + b"x" * 100,
    "GGUF file": b"GGUF" + b"x" * 100,
    "it is empty": b"",
    "has .* bytes, its header says": DATA[:-1],
    "header says .*download": DATA + b"x",
    "header does not fit": DATA[:30],
}


def test_tensors_are_told_without_reading_them(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(DATA)
    header = read_header(tmp_path / "a.safetensors")
    assert {name: (entry.dtype, entry.shape) for name, entry in header.items()} == {
        "a": ("F32", (4,)),
        "b": ("F16", (2, 3)),
    }
    assert max(entry.end for entry in header.values()) == len(DATA)


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_in_place_of_weights_is_named(tmp_path: Path, what: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(OTHERS[what])
    with pytest.raises(DataError, match=rf"a\.safetensors is .*{what}"):
        read_header(tmp_path / "a.safetensors")
