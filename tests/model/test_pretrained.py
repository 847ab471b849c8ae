"""A pretrained weight is never drawn: what a folder lacks, or holds besides, is an error that names
tensors and file; what is dropped on purpose is counted.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
)

from densekit.errors import DataError
from densekit.model.inspection import inspect
from densekit.model.weights import load_parts
from densekit.spec.connector import Connector
from densekit.spec.model_parts import ModelParts
from tests.support.files import write_json

SCI = Connector(kind="sci", layers=(7, 15))


def copy_model(golden: Path, folder: Path, name: str) -> Path:
    shutil.copytree(golden / "models" / name, folder / name, copy_function=shutil.copyfile)
    return folder / name


def parts_of(language_model: Path, vision_tower: Path) -> ModelParts:
    return ModelParts(
        language_model=language_model,
        vision_tower=vision_tower,
        connector=SCI,
        connector_weights=None,
        max_length=128,
    )


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("damage", ["missing", "unexpected", "of another shape"])
@pytest.mark.parametrize(
    ("model", "tensor"),
    [
        ("llm_tiny", "model.layers.0.mlp.down_proj.weight"),
        ("clip_tiny", "vision_model.encoder.layers.3.layer_norm1.bias"),
        ("siglip_tiny", "vision_model.embeddings.position_embedding.weight"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    golden: Path, tmp_path: Path, model: str, tensor: str, damage: str
) -> None:
    folder = copy_model(golden, tmp_path, model)
    edits: dict[str, Callable[[dict[str, Tensor]], object]] = {
        "missing": lambda weights: weights.pop(tensor),
        "unexpected": lambda weights: weights.update({"extra.x": torch.ones(2)}),
        "of another shape": lambda weights: weights.update({tensor: torch.ones(3)}),
    }
    change(folder, edits[damage])
    name = "extra.x" if damage == "unexpected" else tensor.removeprefix("vision_model.")
    llm = folder if model == "llm_tiny" else golden / "models" / "llm_tiny"
    tower = folder if model != "llm_tiny" else golden / "models" / "clip_tiny"
    with pytest.raises(DataError, match=rf"1 {damage} \({name}\)") as raised:
        load_parts(llm, tower, SCI)
    assert f"{folder}/model.safetensors" in str(raised.value)
    # The same sentence before a run directory exists, by the headers alone.
    assert inspect(parts_of(llm, tower)) == [str(raised.value)]


@pytest.mark.parametrize(
    "changes",
    [{"hidden_act": "x"}, {"num_attention_heads": 0}, {"pad_token_id": 10**6}, {"hidden_size": 0}],
)
def test_a_configuration_that_makes_no_model_is_named(
    golden: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    folder = copy_model(golden, tmp_path, "llm_tiny")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, **changes})
    with pytest.raises(DataError, match=r"makes no model|cannot be used") as raised:
        load_parts(folder, golden / "models" / "clip_tiny", SCI)
    assert str(folder) in str(raised.value)


def test_many_tensors_are_counted_and_some_are_named(golden: Path, tmp_path: Path) -> None:
    folder = copy_model(golden, tmp_path, "llm_tiny")
    change(folder, lambda weights: [weights.pop(n) for n in [*weights] if "layers.1" in n])
    with pytest.raises(DataError, match=r"9 missing \(model.layers.1.*, .* and 4 more\)"):
        load_parts(folder, golden / "models" / "clip_tiny", SCI)


def test_a_tensor_in_two_files_is_refused(golden: Path, tmp_path: Path) -> None:
    folder = copy_model(golden, tmp_path, "llm_tiny")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    norm = {"model.norm.weight": weights["model.norm.weight"] * 2}
    save_file(norm, folder / "b.safetensors", {"format": "pt"})
    index = dict.fromkeys(weights, "a.safetensors") | {"x": "b.safetensors"}
    write_json(folder / "model.safetensors.index.json", {"weight_map": index})
    with pytest.raises(DataError, match=r"model\.norm\.weight in a\.safetensors and b\.saf"):
        load_parts(folder, golden / "models" / "clip_tiny", SCI)


def test_a_tensor_under_two_names_is_refused(golden: Path, tmp_path: Path) -> None:
    folder = copy_model(golden, tmp_path, "llm_tiny")
    change(folder, lambda w: w.update({"norm.weight": w["model.norm.weight"] * 2}))
    with pytest.raises(DataError, match=r"norm\.weight and model\.norm\.weight"):
        load_parts(folder, golden / "models" / "clip_tiny", SCI)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_numbers_without_their_scales_are_refused(
    golden: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = copy_model(golden, tmp_path, "llm_tiny")
    name = "model.norm.weight"
    change(folder, lambda w: w.update({name: w[name].to(dtype)}))
    with pytest.raises(DataError, match=rf"{name} is \w+ in model\.safetensors"):
        load_parts(folder, golden / "models" / "clip_tiny", SCI)


def test_under_zero_3_tensors_that_do_not_fit_are_found_before_loading(
    golden: Path, tmp_path: Path
) -> None:
    """transformers reports them neither to all ranks nor all of them."""
    folder = copy_model(golden, tmp_path, "llm_tiny")
    tower = golden / "models" / "clip_tiny"
    change(
        folder, lambda w: w.update({"extra.x": torch.ones(1), "model.norm.weight": torch.ones(3)})
    )

    @contextmanager
    def never() -> Iterator[None]:
        raise AssertionError("it is loaded")
        yield

    with pytest.raises(
        DataError, match=r"1 unexpected \(extra.x\), 1 of another shape \(model.norm.weight\)"
    ):
        load_parts(folder, tower, SCI, language_model_context=never())


def save_full(folder: Path, family: str) -> Path:
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    text = {key: vision[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads")}
    text |= {"num_hidden_layers": 1, "vocab_size": 64}
    config, model = {
        "clip": (CLIPConfig, CLIPModel),
        "siglip": (SiglipConfig, SiglipModel),
    }[family]
    model(config(vision_config=vision, text_config=text)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("family", "counts"),
    [
        (
            "clip",
            "2 projections and scales|3 projections and scales",
        ),
        ("siglip", "2 projections and scales"),
    ],
)
def test_what_is_dropped_on_purpose_is_counted_in_one_line(
    golden: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    family: str,
    counts: str,
) -> None:
    tower = save_full(tmp_path / "tower", family)
    llm = copy_model(golden, tmp_path, "llm_tiny")
    inv_freq = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(3) for n in (0, 1)}
    change(llm, lambda weights: weights.update(inv_freq))
    # Read: layers 1 and 3 (the last but one); block 4 is past it.
    load_parts(llm, tower, Connector(kind="sci", layers=(1,)))
    said = capfd.readouterr().err
    assert f"language model {llm}: not used: 2 rotary tables" in said
    assert f"vision tower {tower}: not used: " in said and said.count("vision tower") == 1
    assert "16 tensors of blocks past 3" in said and "tensors of the text tower" in said
    assert any(count in said for count in counts.split("|"))
    assert "REPORT" not in said


def test_a_block_that_is_not_read_may_be_missing(golden: Path, tmp_path: Path) -> None:
    tower = save_full(tmp_path / "tower", "clip")
    change(tower, lambda w: [w.pop(n) for n in [*w] if "vision_model.encoder.layers.3." in n])
    change(tower, lambda w: w.pop("vision_model.post_layernorm.weight"))
    load_parts(golden / "models" / "llm_tiny", tower, Connector(kind="sci", layers=(1,)))


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_is_missing_is_drawn_only_where_it_is_tied(
    golden: Path, tmp_path: Path, tied: bool
) -> None:
    folder = copy_model(golden, tmp_path, "llm_tiny")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "tie_word_embeddings": tied})
    change(folder, lambda weights: weights.pop("lm_head.weight"))
    tower = golden / "models" / "clip_tiny"
    found = inspect(parts_of(folder, tower))
    assert found == [] if tied else "1 missing (lm_head.weight)" in found[0]
    if not tied:
        with pytest.raises(DataError, match=r"1 missing \(lm_head.weight\)"):
            load_parts(folder, tower, SCI)
        return
    model = load_parts(folder, tower, SCI).language_model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_tied_configuration_with_a_head_of_its_own_is_refused(
    golden: Path, tmp_path: Path
) -> None:
    folder = copy_model(golden, tmp_path, "llm_tiny")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "tie_word_embeddings": True})
    assert inspect(parts_of(folder, golden / "models" / "clip_tiny")) == []  # its numbers decide
    with pytest.raises(DataError, match="ties lm_head to the embedding"):
        load_parts(folder, golden / "models" / "clip_tiny", SCI)


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "../outside.safetensors", "/abs.safetensors", "a/b.safetensors", 7],
)
def test_an_index_names_only_safetensors_of_its_folder(
    golden: Path, tmp_path: Path, name: object
) -> None:
    folder = copy_model(golden, tmp_path, "llm_tiny")
    shutil.move(folder / "model.safetensors", tmp_path / "outside.safetensors")
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"lm_head.weight": name}})
    with pytest.raises(DataError, match=r"only \.safetensors files inside the folder are read"):
        load_parts(folder, golden / "models" / "clip_tiny", SCI)


def test_no_pickle_is_read(golden: Path, tmp_path: Path) -> None:
    folder = copy_model(golden, tmp_path, "llm_tiny")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    shutil.move(folder / "model.safetensors", folder / "x.safetensors")
    with pytest.raises(DataError, match=r"holds x\.safetensors but neither model\.safetensors nor"):
        load_parts(folder, golden / "models" / "clip_tiny", SCI)


def test_an_adapter_is_not_taken_for_a_model(golden: Path, tmp_path: Path) -> None:
    folder = copy_model(golden, tmp_path, "llm_tiny")
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "x"})
    with pytest.raises(DataError, match="holds a LoRA adapter"):
        load_parts(folder, golden / "models" / "clip_tiny", SCI)


def test_no_code_of_a_folder_runs(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anybody asked."""
    folder = copy_model(golden, tmp_path, "llm_tiny")
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    write_json(folder / "config.json", {**config, **own})
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")

    def asked(*_: object) -> str:
        raise AssertionError("asked on stdin")

    monkeypatch.setattr("builtins.input", asked)
    with pytest.raises(DataError, match=r"config\.json cannot be used"):
        load_parts(folder, golden / "models" / "clip_tiny", SCI)
    assert not (tmp_path / "ran").exists()
