"""Our own writer of safetensors: the bytes and the hash are those of safetensors' own."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from densekit.files.safetensors_writer import CHUNK, Layout, write_safetensors
from densekit.model.tensor_files import NAMES, write_tensors


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}, {"fragments": '{"é\\n": [1, 2]}'}])
def test_bytes_are_those_of_the_library(tmp_path: Path, metadata: dict[str, str]) -> None:
    tensors = {
        f"{name}.{place}": (torch.arange(6).reshape(2, 3) % 2).to(dtype)
        for place, dtype in enumerate(NAMES)
        for name in ("b", 'é"\n\x01', "a")
    }
    tensors |= {"none": torch.zeros(0, 3), "scalar": torch.tensor(3.0)}
    tensors["long"] = torch.arange(CHUNK // 4 + 10)
    save_file(tensors, tmp_path / "theirs", metadata=metadata or None)
    written = write_tensors(tensors, tmp_path / "ours", metadata=metadata)
    ours = (tmp_path / "ours").read_bytes()
    assert ours == (tmp_path / "theirs").read_bytes()
    assert written.sha256 == hashlib.sha256(ours).hexdigest() and written.bytes == len(ours)


def test_a_tensor_of_another_size_is_an_error(tmp_path: Path) -> None:
    layouts = {"a": Layout(dtype="F32", shape=(2,))}
    with pytest.raises(ValueError, match="a has 3 bytes, not 8"):
        write_safetensors(tmp_path / "x", layouts, lambda _: memoryview(b"abc"), metadata={})
