"""Pickled weights into safetensors: every tensor is there bit for bit, and what cannot be converted
is refused with the file and the reason.
"""

import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from densekit.errors import DataError, DensekitError, UsageError
from densekit.exchange import convert as module
from densekit.exchange.convert import compare, convert_folder
from densekit.exchange.staging import STAGING, staging
from densekit.files import durable
from densekit.files.hashing import file_sha256
from densekit.files.weight_files import read_weight_files
from densekit.runs.manifest import model_files
from densekit.spec.conversion import read_conversion
from tests.support.files import write_json

INDEX = "model.safetensors.index.json"


def some_tensors(seed: int = 0) -> dict[str, Tensor]:
    """Every type that weights have, among them a NaN with a payload, a view and a scalar."""
    draw = torch.Generator().manual_seed(seed)
    odd = torch.tensor([0x7FC00001, 0x7F800000], dtype=torch.int32).view(torch.float32)
    return {
        "model.embed_tokens.weight": torch.randn(8, 4, generator=draw).bfloat16(),
        "model.norm.weight": torch.randn(4, generator=draw),
        "model.half": torch.randn(3, 5, generator=draw).half(),
        "model.transposed": torch.randn(3, 5, generator=draw).T,
        "model.slice": torch.randn(6, 4, generator=draw)[1:4, ::2],
        "model.odd": odd,
        "position_ids": torch.arange(5),
        "logit_scale": torch.tensor(2.5),
    }


def make(folder: Path, files: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Path:
    """A folder with files of torch.save."""
    folder.mkdir(parents=True)
    for name, value in files.items():
        torch.save(value, folder / name)
    write_json(folder / "config.json", {"model_type": "llama", **(config or {})})
    return folder


def sharded(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """A folder of two shards with their index."""
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    parts = [some_tensors(), {"lm_head.weight": torch.ones(8, 4)}]
    make(folder, dict(zip(names, parts, strict=True)))
    weight_map = {t: name for name, part in zip(names, parts, strict=True) for t in part}
    write_json(folder / "pytorch_model.bin.index.json", {"weight_map": weight_map})
    return folder, parts[0] | parts[1]


def assert_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        one, other = (t.contiguous().reshape(-1).view(torch.uint8) for t in (found[name], value))
        assert torch.equal(one, other), name


@pytest.mark.parametrize("legacy", [False, True])
def test_every_tensor_is_kept_bit_for_bit(tmp_path: Path, legacy: bool) -> None:
    tensors = some_tensors()
    folder = make(tmp_path / "m", {})
    path = folder / "pytorch_model.bin"
    torch.save(OrderedDict(tensors), path, _use_new_zipfile_serialization=not legacy)
    (folder / "flax_model.msgpack").write_bytes(b"not looked at")
    said: list[str] = []
    report = convert_folder(folder, say=said.append)
    assert not report.already and report.conversion.tensors == len(tensors)
    assert_same(load_file(folder / "model.safetensors"), tensors)
    with safe_open(folder / "model.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    recorded = read_conversion(folder)
    assert recorded is not None and recorded.originals[path.name].sha256 == file_sha256(path)
    assert recorded.files["model.safetensors"].sha256 == file_sha256(folder / "model.safetensors")
    assert "8 tensors" in said[0] and not (folder / STAGING).exists()
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "conversion.json",
        "flax_model.msgpack",
        "model.safetensors",
        "pytorch_model.bin",
    ]


def test_shards_are_converted_with_their_index(tmp_path: Path) -> None:
    folder, tensors = sharded(tmp_path / "m")
    report = convert_folder(folder)
    found, problems = read_weight_files(folder)
    index = json.loads((folder / INDEX).read_text())
    assert not [problem for problem in problems if "I64" not in problem]
    assert found.keys() == tensors.keys() == index["weight_map"].keys()
    sizes = [value.numel() * value.element_size() for value in tensors.values()]
    assert index["metadata"]["total_size"] == sum(sizes)
    assert list(report.conversion.files)[-1] == INDEX, "the file that makes it readable comes last"
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    assert_same(load_file(folder / shards[0]) | load_file(folder / shards[1]), tensors)


def test_a_conversion_is_recognised_also_without_its_originals(tmp_path: Path) -> None:
    folder, _ = sharded(tmp_path / "m")
    first = convert_folder(folder)
    made = (folder / INDEX).stat().st_mtime_ns
    again = convert_folder(folder)
    assert again.already and again.conversion.files == first.conversion.files
    for path in folder.glob("pytorch_model*"):
        path.unlink()
    assert convert_folder(folder).already and (folder / INDEX).stat().st_mtime_ns == made


@pytest.mark.parametrize("name", ["pytorch_model-00002-of-00002.bin", "model-00001-of-00002.saf"])
def test_another_original_or_a_damaged_file_is_converted_anew(tmp_path: Path, name: str) -> None:
    folder, tensors = sharded(tmp_path / "m")
    convert_folder(folder)
    if name.endswith(".bin"):
        tensors["lm_head.weight"] = torch.zeros(8, 4)
        torch.save({"lm_head.weight": torch.zeros(8, 4)}, folder / name)
    else:
        damaged = folder / f"{name}etensors"
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"\xff")
    assert not convert_folder(folder).already
    shards = sorted(folder.glob("*.safetensors"))
    assert_same(load_file(shards[0]) | load_file(shards[1]), tensors)


def test_a_tied_head_is_kept_once(tmp_path: Path) -> None:
    embedding = torch.randn(8, 4)
    shared = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding}
    tied = make(tmp_path / "tied", {"pytorch_model.bin": shared}, {"tie_word_embeddings": True})
    assert convert_folder(tied).conversion.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert list(load_file(tied / "model.safetensors")) == ["model.embed_tokens.weight"]
    with safe_open(tied / "model.safetensors", "pt") as opened:
        assert opened.metadata()["lm_head.weight"] == "model.embed_tokens.weight"
    untied = make(tmp_path / "untied", {"pytorch_model.bin": shared})
    assert convert_folder(untied).conversion.tied == {}
    assert_same(load_file(untied / "model.safetensors"), shared)
    other = {**shared, "lm_head.weight": torch.randn(8, 4)}
    apart = make(tmp_path / "apart", {"pytorch_model.bin": other}, {"tie_word_embeddings": True})
    convert_folder(apart)
    assert_same(load_file(apart / "model.safetensors"), other)


def test_wrapped_weights_are_taken_out_and_the_rest_is_named(tmp_path: Path) -> None:
    tensors = {"visual.trunk.stem.0.weight": torch.randn(4, 3), "logit_scale": torch.tensor(1.0)}
    wrapped = {
        "epoch": 7,
        "name": "convnext",
        "state_dict": {f"module.{name}": value for name, value in tensors.items()},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
    }
    folder = make(tmp_path / "m", {"open_clip_pytorch_model.bin": wrapped})
    conversion = convert_folder(folder).conversion
    assert_same(load_file(folder / "open_clip_model.safetensors"), tensors)
    name = "open_clip_pytorch_model.bin"
    assert conversion.left_out == {name: ("epoch", "name", "optimizer")}
    assert conversion.renamed == {name: "module."}


def test_another_folder_gets_everything_but_the_pickles(tmp_path: Path) -> None:
    folder, tensors = sharded(tmp_path / "snapshots" / "abc123")
    (folder / "tokenizer.model").write_bytes(b"pieces")
    (folder / "training_args.bin").write_bytes(b"no weights")
    convert_folder(folder, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        ".revision",
        "config.json",
        "conversion.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        INDEX,
        "tokenizer.model",
    ]
    assert (tmp_path / "new" / ".revision").read_text() == "abc123\n"
    assert convert_folder(folder, tmp_path / "new").already
    assert not list(folder.glob("*.safetensors")) and len(tensors) == 9


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_needs_code_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    folder, marker = make(tmp_path / "m", {}), tmp_path / "ran"
    value = {"a": torch.zeros(2), "b": Evil(marker)}
    file = folder / "pytorch_model.bin"
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DataError, match=r"model.bin needs code .*: it asks for posix.mkdir;"):
        convert_folder(folder)
    assert not marker.exists() and sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "pytorch_model.bin",
    ]


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "pytorch_model.bin").write_bytes(content) and None


def _cut(folder: Path, *, legacy: bool = False, keep: int = -40) -> None:
    path = folder / "pytorch_model.bin"
    torch.save(some_tensors(), path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:keep])


def _saved(value: Any, name: str = "pytorch_model.bin") -> Callable[[Path], None]:
    return lambda folder: torch.save(value, folder / name)


def _shard_missing(folder: Path) -> None:
    _saved({"a": torch.zeros(1)}, "pytorch_model-00002-of-00002.bin")(folder)


def _index(folder: Path, weight_map: Any) -> None:
    write_json(folder / "pytorch_model.bin.index.json", {"weight_map": weight_map})
    _saved({"a": torch.zeros(1)}, "one.bin")(folder)
    _saved({"a": torch.zeros(1)}, "two.bin")(folder)


ZEROS = torch.zeros(2)
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing": (lambda f: None, "holds no weights to convert"),
    "others alone": (_saved(ZEROS, "mm_projector.bin"), "mm_projector.bin, which"),
    "empty": (_bytes(b""), "pytorch_model.bin is empty: download"),
    "zeros": (_bytes(bytes(500)), "is full of zeros"),
    "web page": (_bytes(b"<!DOCTYPE html><html>"), "is a web page, not the file"),
    "LFS": (_bytes(b"version https://git-lfs.github.com/spec/v1\noid"), "a pointer of Git LFS"),
    "something else": (_bytes(b'{"error": "no access"}'), "is no file of torch.save: download"),
    "another pickle": (_bytes(b"\x80\x04\x95\x0a\x00"), "is no file of torch.save, or a damaged"),
    "cut": (_cut, "pytorch_model.bin is cut off or damaged"),
    "cut legacy": (lambda f: _cut(f, legacy=True), "cut off or damaged .unexpected EOF"),
    "cut at the start": (lambda f: _cut(f, legacy=True, keep=40), "cut off or damaged"),
    "a list": (_saved([ZEROS]), "holds a list, not tensors by name"),
    "no tensors": (_saved({"epoch": 3}), "holds epoch and no tensor among them"),
    "two models": (_saved({"model": {"a": ZEROS}, "state_dict": {"b": ZEROS}}), "may both be"),
    "nested": (_saved({"a": ZEROS, "ema": {"a": ZEROS}}), "others inside ema: which are"),
    "sparse": (_saved({"a": torch.eye(3).to_sparse()}), "a is sparse"),
    "quantised": (_saved({"a": torch.quantize_per_tensor(ZEROS, 0.1, 0, torch.qint8)}), "qint8"),
    "meta": (_saved({"a": torch.empty(3, device="meta")}), "a tensor without values"),
    "a bomb": (_saved({"a": torch.zeros(1).expand(1 << 40)}), "bytes, of which the file holds 4"),
    "shard missing": (_shard_missing, r"holds 1 of 2 files pytorch_model-\*-of-00002.bin"),
    "indexed missing": (lambda f: _index(f, {"a": "three.bin"}), "lacks three.bin, which"),
    "outside": (lambda f: _index(f, {"a": "../x.bin"}), "only .bin files inside the folder"),
    "lacking": (lambda f: _index(f, {"b": "one.bin"}), "one.bin lacks b, which the index says"),
    "twice": (lambda f: _index(f, {"a": "one.bin", "b": "two.bin"}), "two.bin holds a, and an"),
    "two sets": (
        lambda f: (_saved({"a": ZEROS})(f), _index(f, {"a": "one.bin"})),
        "holds pytorch_model.bin beside",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_converted_is_refused(tmp_path: Path, name: str) -> None:
    put, message = REFUSED[name]
    folder = make(tmp_path / "m", {})
    put(folder)
    before = sorted(folder.iterdir())
    with pytest.raises(DataError, match=message):
        convert_folder(folder)
    assert sorted(folder.iterdir()) == before, "nothing stays"


def test_a_place_with_something_else_is_refused(tmp_path: Path) -> None:
    folder, _ = sharded(tmp_path / "m")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UsageError, match="is not empty"):
        convert_folder(folder, tmp_path / "full")
    (folder / "model.safetensors").touch()
    with pytest.raises(UsageError, match=r"holds model.safetensors of its own"):
        convert_folder(folder)
    with pytest.raises(UsageError, match="is not a folder"):
        convert_folder(tmp_path / "none")


def test_without_room_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = sharded(tmp_path / "m")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=r"converting needs 0.0 GB, 0.0 GB are free: free disk"):
        convert_folder(folder)
    assert not list(folder.glob("*.safetensors")) and not (folder / STAGING).exists()


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    folder, _ = sharded(tmp_path / "m")
    with staging(folder), pytest.raises(DataError, match="being converted by another process"):
        convert_folder(folder)
    assert not convert_folder(folder).already


def test_a_written_file_that_differs_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = some_tensors()
    folder = make(tmp_path / "m", {"pytorch_model.bin": tensors})
    convert_folder(folder)
    file = folder / "model.safetensors"
    with pytest.raises(DataError, match=r"model.norm.weight in .* are not what x holds"):
        compare(tensors | {"model.norm.weight": torch.zeros(4)}, file, Path("x"))
    with pytest.raises(DataError, match=r"model.half in"):
        compare(tensors | {"model.half": tensors["model.half"].float()}, file, Path("x"))

    def spoiled(kept: dict[str, Tensor], path: Path, **options: Any) -> Any:
        return real({**kept, "model.norm.weight": torch.zeros(4)}, path, **options)

    real = module.write_tensors
    monkeypatch.setattr(module, "write_tensors", spoiled)
    with pytest.raises(DataError, match="does not keep what is written"):
        convert_folder(folder, tmp_path / "other")


class Killed(BaseException):
    """A SIGKILL, as far as files can tell."""


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_kill_at_any_operation_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    whole, _ = sharded(tmp_path / "whole")
    convert_folder(whole)
    wanted = {path.name: path.read_bytes() for path in whole.glob("*.safetensors*")}
    operation = 0
    while True:
        folder, _ = sharded(tmp_path / str(operation))
        target = tmp_path / f"to-{operation}" if elsewhere else folder
        left = iter(range(operation))

        def observe(what: str, path: Path, left: Any = left) -> None:
            if next(left, None) is None:
                raise Killed

        monkeypatch.setattr(durable, "observer", observe)
        try:
            convert_folder(folder, target if elsewhere else None)
            break
        except Killed:
            pass
        monkeypatch.setattr(durable, "observer", None)
        if read_weight_files(target)[0]:
            assert all((target / name).read_bytes() == wanted[name] for name in wanted)
        convert_folder(folder, target if elsewhere else None)
        assert {p.name: p.read_bytes() for p in target.glob("*.safetensors*")} == wanted
        assert not (target / STAGING).exists()
        operation += 1
    assert operation > 12


def test_a_manifest_names_the_originals(tmp_path: Path) -> None:
    folder, _ = sharded(tmp_path / "m")
    convert_folder(folder)
    recorded = model_files(folder)
    conversion = read_conversion(folder)
    assert conversion is not None
    assert recorded.converted_from == {n: f.sha256 for n, f in conversion.originals.items()}
    assert {name: recorded.files[name] for name in conversion.files} == {
        name: saved.sha256 for name, saved in conversion.files.items()
    }
    assert not recorded.files.keys() & conversion.originals.keys(), "no pickle is read"
    (folder / "conversion.json").write_text("{}")
    with pytest.raises(DensekitError, match=r"conversion.json: its own hash does not fit"):
        convert_folder(folder)
