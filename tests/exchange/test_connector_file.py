"""`models.connector` takes mm_projector.bin: converted once, bit for bit, in a process of its own;
the run knows the hash of what was given; what is no projector is refused.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from densekit.errors import DataError, UsageError
from densekit.exchange.carry_out import carry_out
from densekit.files.hashing import file_sha256
from densekit.launch.connector_conversion import awaits_conversion, convert_connectors
from densekit.launch.launchers.local import Local
from densekit.launch.preflight import preflight
from densekit.recipes.load import load_recipe
from densekit.runs.connector_weights import connector_weights
from densekit.runs.model_verdicts import stage_parts
from densekit.spec.conversion import read_conversion
from densekit.spec.exchange import ExchangeReport, ExchangeRequest
from densekit.spec.execution import Execution
from densekit.spec.roots import Roots


class Counting(Local):
    """Does in this process what a launcher's would do in one of its own, and counts."""

    def __init__(self) -> None:
        self.requests: list[ExchangeRequest] = []

    def exchange(self, request: ExchangeRequest, execution: Execution) -> ExchangeReport:
        self.requests.append(request)
        return carry_out(request, say=lambda line: None)


@pytest.fixture
def official(golden_exchange: Path) -> Path:
    return golden_exchange / "given/clip_dci/stage1_into_checkpoint/mm_projector/checkpoint-20.bin"


def convert(path: Path, cache: Path, launcher: Local | None = None) -> Path:
    """Convert it as a run would; returns what is read then."""
    recipe = load_recipe("tiny_stage2", ["needs=null", f"models.connector={path}"])
    convert_connectors([recipe], Roots(cache=cache), launcher or Counting(), Execution())
    return connector_weights(path, cache)


def test_the_official_file_is_converted_once_and_bit_for_bit(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher, cache = Counting(), tmp_path / "cache"
    assert awaits_conversion(official, cache)
    with pytest.raises(DataError, match="`densekit run` makes it before it trains"):
        connector_weights(official, cache)
    read = convert(official, cache, launcher)
    assert convert(official, cache, launcher) == read and len(launcher.requests) == 1
    assert not awaits_conversion(official, cache)
    theirs = torch.load(official, weights_only=True)
    ours = load_file(read)
    assert {f"model.mm_projector.{name}" for name in ours} == set(theirs)
    for name, value in ours.items():
        given = theirs[f"model.mm_projector.{name}"]
        assert value.dtype == given.dtype and torch.equal(value, given)
    record = read_conversion(read.parent)
    assert record is not None and record.tensors == 4
    assert record.originals[official.name].sha256 == file_sha256(official) == read.parent.name
    assert f"from SHA-256 {file_sha256(official)[:16]}" in capsys.readouterr().err


def test_the_run_knows_what_was_given(official: Path, tmp_path: Path) -> None:
    roots = Roots(cache=tmp_path / "cache")
    recipe = load_recipe("tiny_stage2", ["needs=null", f"models.connector={official}"])
    (before,) = [check for check in preflight(recipe, roots).checks if "connector" in check.name]
    assert before.state == "ok" and "is converted when the run starts" in before.message
    read = convert(official, roots.cache)
    found = preflight(recipe, roots)
    assert found.inputs["connector"] == file_sha256(official)
    assert {check.state for check in found.checks} == {"ok"}
    given = recipe.model_copy(update={"assets": None}).math()  # as if the models were given
    parts = stage_parts(given, roots)
    assert parts is not None and parts.connector_weights == read


@pytest.mark.parametrize("prefix", ["model.mm_projector.", "mm_projector.", ""])
@pytest.mark.parametrize("ending", [".bin", ".safetensors"])
def test_other_spellings(tmp_path: Path, prefix: str, ending: str) -> None:
    tensors = _projector(prefix)
    path = _saved(tmp_path / f"connector{ending}", tensors)
    read = convert(path, tmp_path / "cache")
    assert (read == path) == (ending == ".safetensors" and not prefix)
    ours = load_file(read)
    assert all(torch.equal(ours[name.removeprefix(prefix)], tensors[name]) for name in tensors)
    assert {value.dtype for value in ours.values()} == {torch.float16}  # as LLaVA released them


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.embed_tokens.weight": torch.zeros(2, 2)}, "other parts were trained too"),
        ({"model.mm_projector.2.bias": None}, r"a two-layer projector \(mlp2x_gelu\) has"),
        ({"model.mm_projector.4.weight": torch.zeros(2, 2)}, "a two-layer projector"),
        ({"model.image_newline": torch.zeros(2)}, "image_newline beside the connector"),
        ({"vlm_uni_aux_projector.0.weight": torch.zeros(2)}, r"a Mini-Gemini \(MGM\) model"),
    ],
)
def test_what_is_no_projector_is_refused(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    tensors = {**_projector("model.mm_projector."), **change}
    path = tmp_path / "mm_projector.bin"
    _saved(path, {name: value for name, value in tensors.items() if value is not None})
    with pytest.raises(DataError, match=message):
        convert(path, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_damaged_and_dangerous_files_are_refused(official: Path, tmp_path: Path) -> None:
    path = tmp_path / "mm_projector.bin"
    path.write_bytes(official.read_bytes()[:-2000])
    with pytest.raises(DataError, match="cut off or damaged"):
        convert(path, tmp_path / "cache")
    torch.save({"model.mm_projector.0.weight": Path("x")}, path)
    with pytest.raises(DataError, match="needs code to be read, which is never run"):
        convert(path, tmp_path / "cache")
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=r"mm_projector\.bin is "):
        convert(path, tmp_path / "cache")
    with pytest.raises(UsageError, match="is not a file"):
        request = ExchangeRequest.model_validate(
            {"connector": {"file": tmp_path / "none.bin", "to": tmp_path / "to"}}
        )
        carry_out(request, say=lambda line: None)


def _projector(prefix: str) -> dict[str, torch.Tensor]:
    shapes = {"0.weight": (3, 6), "0.bias": (3,), "2.weight": (3, 3), "2.bias": (3,)}
    draw = torch.Generator().manual_seed(0)
    return {
        f"{prefix}{n}": torch.randn(shape, generator=draw).half() for n, shape in shapes.items()
    }


def _saved(path: Path, tensors: dict[str, Any]) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path
