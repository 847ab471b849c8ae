"""Saving, loading and generating."""

from pathlib import Path

import pytest
import torch

from densekit.errors import DataError
from densekit.model.init import initial_projector
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.model.weights import load_parts, read_weights, save_weights
from densekit.recipes.load import load_recipe
from densekit.spec.connector import Connector
from densekit.spec.roots import Roots
from densekit.train.initial_state import draw_init
from tests.support.models import small_model


@pytest.mark.parametrize("tied", [False, True])
def test_save_and_load_keep_every_weight(tmp_path: Path, tied: bool) -> None:
    model = small_model(tied=tied)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    again, report = DenseConnectorForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert again.config.connector_spec == model.config.connector_spec
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_generation_equals_stock_greedy_and_batches_do_not_interfere() -> None:
    model = small_model().eval()
    pixels = torch.randn(1, 3, 28, 28)
    with_image = torch.tensor([1, 5, -200, 7, 8])
    text_only = torch.tensor([1, 9, 10])
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    together = model.generate([with_image, text_only], pixels, **settings)
    alone = [
        model.generate([with_image], pixels, **settings),
        model.generate([text_only], **settings),
    ]
    assert torch.equal(together, torch.cat(alone))
    features = model.projector(model.encode_images(pixels))[0]
    embed = model.get_input_embeddings()
    row = torch.cat([embed(with_image[:2]), features, embed(with_image[3:])])[None]
    with torch.no_grad(), model.stock_attention("eager"):
        for token in alone[0][0]:
            assert model.language_model(inputs_embeds=row).logits[0, -1].argmax() == token
            row = torch.cat([row, embed(token)[None, None]], dim=1)


def test_tags_and_images_must_agree() -> None:
    with pytest.raises(ValueError, match="1 image tags in the prompts, 0 images"):
        small_model().generate([torch.tensor([1, -200])])


def test_the_connector_is_drawn_from_its_own_named_generator() -> None:
    model = small_model()
    first = initial_projector(model.projector, 42)
    torch.manual_seed(9)
    assert all(
        torch.equal(first[name], value)
        for name, value in initial_projector(model.projector, 42).items()
    )
    assert not torch.equal(first["0.weight"], initial_projector(model.projector, 43)["0.weight"])
    bound = first["0.weight"].shape[1] ** -0.5
    assert first["0.weight"].abs().max() <= bound and first["0.weight"].abs().max() > 0.9 * bound
    assert {name: value.shape for name, value in first.items()} == {
        name: value.shape for name, value in model.projector.state_dict().items()
    }


def test_weights_of_step_0_are_rounded_where_a_recipe_asks() -> None:
    model = small_model()
    exact, rounded = (
        draw_init(model, load_recipe("tiny_stage1", overrides).math(), Roots(), None)
        for overrides in ([], ["initial_weights=bf16"])
    )
    assert exact.keys() == rounded.keys()
    for name, value in exact.items():
        assert torch.equal(rounded[name], value.bfloat16().float())
    assert not torch.equal(rounded["connector.0.weight"], exact["connector.0.weight"])


def test_exact_initial_weights_leave_no_trace_in_a_run_s_identity() -> None:
    math = load_recipe("vicuna7b_stage2").math()
    assert math.initial_weights == "exact" and "initial_weights" not in math.as_json()
    rounded = load_recipe("vicuna7b_stage2", ["initial_weights=bf16"]).math()
    assert rounded.as_json() == {**math.as_json(), "initial_weights": "bf16"}


def test_bad_parts_name_the_folder(golden: Path, tmp_path: Path) -> None:
    models = golden / "models"
    with pytest.raises(DataError, match=r"config\.json"):
        load_parts(tmp_path, models / "clip_tiny", Connector(kind="none"))
    with pytest.raises(DataError, match="only clip_vision_model, siglip_vision_model are"):
        load_parts(models / "llm_tiny", models / "llm_tiny", Connector(kind="none"))
    with pytest.raises(DataError, match="24 layers"):
        load_parts(models / "llm_tiny", models / "clip_tiny", Connector(kind="sci", layers=(30,)))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with pytest.raises(DataError, match=r"broken\.safetensors"):
        read_weights(broken)
    save_weights({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert torch.equal(read_weights(tmp_path / "a.safetensors")["a"], torch.ones(2))
