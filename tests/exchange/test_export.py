"""Exports answer as their source: in stock transformers, in the official format bit for bit, in
densekit's own class; and what a format cannot hold is refused.
"""

import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from densekit.errors import DataError, UsageError
from densekit.exchange.export import exporting
from densekit.exchange.export.exporting import export_model
from densekit.exchange.export.stock_projector import NAMES, stock_projector
from densekit.exchange.official.importing import import_folder
from densekit.spec.connector import Connector
from densekit.spec.exchange import ExportRequest
from densekit.spec.imported import ImportRequest
from tests.exchange.official_folders import copied, edit_config

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def imported(golden_exchange: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both committed checkpoints, imported."""
    place = tmp_path_factory.mktemp("imported")
    for kind in ("stage2", "lora"):
        folder = golden_exchange / "given" / "clip_dci" / kind
        search = (golden_exchange / "base",)
        import_folder(ImportRequest(folder=folder, to=place / kind, search=search))
    return place


def export(source: Path, to: Path, format_: str, **options: object) -> list[str]:
    request = {"source": source, "to": to, "format": format_, **options}
    return export_model(ExportRequest.model_validate(request))


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the comparison of answers, whose processes take their time: where tensors are."""
    monkeypatch.setattr(exporting, "_check", lambda *_: [])


def test_llava_hf_answers_alike(imported: Path, tmp_path: Path) -> None:
    lines = export(imported / "stage2", tmp_path / "hf", "llava-hf")
    assert "checked in a fresh process" in lines[1] and lines[1].endswith("greedy ids equal")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["vision_feature_layer"] == list(range(24))
    generation = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert generation["suppress_tokens"] == [560] and generation["eos_token_id"] == [2]
    processor = json.loads((tmp_path / "hf" / "processor_config.json").read_text())
    assert processor["image_processor"]["do_pad"] is True
    template = (tmp_path / "hf" / "chat_template.jinja").read_text()
    assert "USER: " in template
    for path in (tmp_path / "hf").iterdir():
        assert str(imported.parent) not in path.read_bytes().decode("utf-8", "replace")
        umask = os.umask(0o022)
        os.umask(umask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_official_round_trip_is_bit_for_bit(
    imported: Path, golden_exchange: Path, tmp_path: Path, unchecked: None
) -> None:
    given = golden_exchange / "given" / "clip_dci"
    export(imported / "stage2", tmp_path / "full", "official")
    ours = load_file(tmp_path / "full" / "model.safetensors")
    theirs = load_file(given / "stage2" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert {value.dtype for value in ours.values()} == {value.dtype for value in theirs.values()}
    export(imported / "lora", tmp_path / "lora", "official")
    for name in ("adapter_model.bin", "non_lora_trainables.bin"):
        ours = torch.load(tmp_path / "lora" / name, weights_only=True)
        theirs = torch.load(given / "lora" / name, weights_only=True)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    for name in ("full", "lora"):
        kind = "stage2" if name == "full" else name
        ours_config = json.loads((tmp_path / name / "config.json").read_text())
        assert ours_config == json.loads((given / kind / "config.json").read_text())


def test_merged_lora_is_the_recorded_merge(
    imported: Path, golden_exchange: Path, tmp_path: Path, unchecked: None
) -> None:
    with pytest.raises(UsageError, match="--merge-lora"):
        export(imported / "lora", tmp_path / "own", "densekit")
    export(imported / "lora", tmp_path / "own", "densekit", merge_lora=True)
    ours: dict[str, torch.Tensor] = {}
    for path in (tmp_path / "own").glob("*.safetensors"):
        ours |= load_file(path)
    recorded = golden_exchange / "given" / "clip_dci" / "expected_lora"
    for name, value in load_file(recorded / "merged_weights.safetensors").items():
        assert torch.equal(ours[f"language_model.{name}"], value)


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["official", "densekit"])
@pytest.mark.parametrize("kind", ["stage2", "lora"])
def test_other_formats_answer_alike(
    imported: Path, tmp_path: Path, kind: str, format_: str
) -> None:
    merge = kind == "lora" and format_ == "densekit"
    lines = export(imported / kind, tmp_path / "x", format_, merge_lora=merge)
    assert lines[1].endswith("greedy ids equal")


def test_an_export_that_answers_otherwise_is_removed(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh(source: object, request: object, folder: object, values: dict) -> dict:
        return {
            f"{number}/{name}": torch.zeros(size)
            for number in range(3)
            for name, size in (("logits", 560), ("generated", 16))
        }

    monkeypatch.setattr(exporting, "_fresh", fresh)
    with pytest.raises(DataError, match="does not answer as"):
        export(imported / "stage2", tmp_path / "x", "official")
    assert not (tmp_path / "x").exists()


def test_dry_run_says_files_and_memory(imported: Path, tmp_path: Path) -> None:
    lines = export(imported / "lora", tmp_path / "x", "llava-hf", merge_lora=True, dry_run=True)
    assert lines[0].startswith("model.safetensors: 21 tensors") and "host RAM" in lines[-1]
    assert not (tmp_path / "x").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="is not empty"):
        export(imported / "stage2", tmp_path / "full", "official", dry_run=True)


def test_dry_run_of_adapters_counts_no_language_model(imported: Path, tmp_path: Path) -> None:
    (line,) = export(imported / "lora", tmp_path / "x", "official", dry_run=True)
    assert "the connector and the adapters, no language model, would be written" in line


def test_sti_is_refused_with_the_reason(golden_exchange: Path, tmp_path: Path) -> None:
    given = golden_exchange / "given" / "clip_dci" / "stage1_into_checkpoint"
    folder = copied(given, tmp_path / "stage1")
    edit_config(folder / "checkpoint-20", mm_dense_connector_type="sti")
    path = folder / "mm_projector" / "checkpoint-20.bin"
    tensors = torch.load(path, weights_only=True)
    tensors["model.mm_projector.0.weight"] = tensors["model.mm_projector.0.weight"][:, :32].clone()
    torch.save(tensors, path)
    search = (golden_exchange / "base",)
    import_folder(ImportRequest(folder=folder, to=tmp_path / "in", search=search))
    with pytest.raises(DataError, match=r"sti cannot be written.*pooled tokens"):
        export(tmp_path / "in", tmp_path / "out", "llava-hf")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("connector", "layers"),
    [
        (Connector(kind="none"), [5]),
        (Connector(kind="sci", layers=(3, 1)), [1, 3, 5]),
        (Connector(kind="dci", groups=((0, 1, 2), (3, 4, 5))), [0, 1, 2, 3, 4, 5]),
        (Connector(kind="dci", groups=((2, 5), (1, 2))), [1, 2, 5]),
    ],
)
def test_wider_linear_computes_the_same(connector: Connector, layers: list[int]) -> None:
    states = torch.randn(7, 6, 4, generator=torch.Generator().manual_seed(0)).double()
    blocks = [states[:, 5]]
    blocks += [states[:, layer] for layer in connector.layers]
    blocks += [states[:, list(group)].mean(1) for group in connector.groups]
    weight = torch.randn(3, connector.width(4), generator=torch.Generator().manual_seed(1))
    projector = dict.fromkeys(NAMES, weight)
    found, stock = stock_projector(connector, projector, tower_layers=6)
    assert found == layers
    wide = torch.cat([states[:, layer] for layer in found], dim=1)
    ours = wide @ stock[NAMES["0.weight"]].double().T
    assert (ours - torch.cat(blocks, dim=1) @ weight.double().T).abs().max() < 4e-6
