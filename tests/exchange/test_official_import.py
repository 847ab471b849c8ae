"""Official folders become folders of densekit's, bit for bit and with a record; what cannot be
imported is refused with a sentence.
"""

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from densekit.errors import DataError, UsageError
from densekit.exchange.loading import load_model
from densekit.exchange.official.importing import import_folder
from densekit.files.hashing import file_sha256
from densekit.spec.imported import Imported, ImportRequest, read_imported
from tests.exchange.official_folders import copied, edit_config, sharded, stage1

CONNECTOR = "connector.safetensors"


class World:
    """The committed folders, and a place for imports."""

    def __init__(self, golden_exchange: Path, place: Path) -> None:
        self.golden, self.place = golden_exchange, place
        self.base = golden_exchange / "base"
        self.given = golden_exchange / "given" / "clip_dci"
        self.to = place / "to"

    def load(self, folder: Path, **options: Path | str) -> Imported:
        request = {"folder": folder, "to": self.to, "search": (self.base,), **options}
        return import_folder(ImportRequest.model_validate(request))

    def copy(self, kind: str) -> Path:
        return copied(self.given / kind, self.place / "renamed")


@pytest.fixture
def world(golden_exchange: Path, tmp_path: Path) -> World:
    return World(golden_exchange, tmp_path)


def test_stage1_in_both_forms(world: World) -> None:
    record = world.load(stage1(world.golden, world.place / "any-name"))
    assert (record.trains, record.connector.kind, record.template) == ("connector", "dci", "v1")
    assert record == read_imported(world.to).model_copy(update={"sha256": ""})
    official = torch.load(
        world.given / "stage1_into_checkpoint" / "mm_projector" / "checkpoint-20.bin",
        weights_only=True,
    )
    ours = load_file(world.to / CONNECTOR)
    assert {f"model.mm_projector.{name}" for name in ours} == official.keys()
    assert all(
        torch.equal(ours[name.rpartition("projector.")[2]], official[name]) for name in official
    )
    assert record.files[CONNECTOR].sha256 == file_sha256(world.to / CONNECTOR)
    assert record.read.keys() == {"config.json", "mm_projector.bin"}
    assert record.base is not None and "model.safetensors" in record.base.files
    for name in ("stage1_into_checkpoint", "stage1_into_checkpoint/checkpoint-20"):
        again = world.load(world.given / name, to=world.place / name.replace("/", "-"))
        assert again.files[CONNECTOR] == record.files[CONNECTOR]


@pytest.mark.parametrize("form", ["safetensors", "shards of pickles"])
def test_full_bit_for_bit(world: World, form: str) -> None:
    folder = world.given / "stage2"
    if form != "safetensors":
        folder = sharded(world.golden, world.place / "shards")
    (world.place / "training_args.bin").write_bytes(b"not opened")
    record = world.load(folder)
    official = load_file(world.given / "stage2" / "model.safetensors")
    ours = {
        f"{prefix}{name}": value
        for prefix, pattern in (
            ("", "language_model/*.safetensors"),
            ("model.mm_projector.", CONNECTOR),
            ("model.vision_tower.vision_tower.", "official/vision_tower.safetensors"),
        )
        for path in world.to.glob(pattern)
        for name, value in load_file(path).items()
    }
    assert ours.keys() == official.keys()
    assert all(torch.equal(ours[name], value) for name, value in official.items())
    assert (record.trains, record.notes, record.base) == ("full", (), None)
    assert (world.to / "language_model" / "tokenizer.model").is_file()


def test_llava_folder(world: World) -> None:
    """No connector key, no tower inside, a model type that transformers uses for its own, bf16
    beside fp32, and rotary tables.
    """

    def change(name: str, value: torch.Tensor) -> torch.Tensor:
        if name == "model.mm_projector.0.weight":
            return value[:, :32].clone()
        return value if "mm_projector" in name else value.bfloat16()

    folder = sharded(
        world.golden, world.place / "f", lambda name: "vision_tower" not in name, change
    )
    shard = folder / "pytorch_model-00001-of-00002.bin"
    tensors = torch.load(shard, weights_only=True)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    torch.save(tensors, shard)
    edit_config(
        folder, mm_dense_connector_type=None, is_video=None, model_type="llava", mm_hidden_size=32
    )
    record = world.load(folder)
    assert record.connector.kind == "none"
    assert record.left_out == {"rotary tables (inv_freq), computed anew": 1}
    assert not (world.to / "official" / "vision_tower.safetensors").exists()
    first = load_file(world.to / "language_model" / "model-00001-of-00002.safetensors")
    assert {value.dtype for value in first.values()} == {torch.bfloat16}
    assert load_file(world.to / CONNECTOR)["0.weight"].dtype == torch.float32


def test_copy_of_the_tower_is_the_fallback_and_said(world: World) -> None:
    tower = world.place / "settings"
    tower.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copyfile(world.base / "models" / "clip_tiny" / name, tower / name)
    record = world.load(world.given / "stage2", tower=tower)
    assert record.vision_tower == "vision_tower" and record.tower is None
    assert "the copy of the tower in the checkpoint is used" in record.notes[0]
    ours = load_file(world.to / "vision_tower" / "model.safetensors")
    named = load_file(world.base / "models" / "clip_tiny" / "model.safetensors")
    assert all(torch.equal(ours[name], named[name]) for name in ours)


def test_changed_copy_of_the_tower_is_said(world: World) -> None:
    folder = world.copy("stage2")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.vision_tower.vision_tower.vision_model.pre_layrnorm.bias"] += 0.5
    save_file(tensors, folder / "model.safetensors")
    (note,) = world.load(folder).notes
    assert "up to 0.5 away from clip_tiny" in note


def test_a_trained_tower_is_the_one_in_the_checkpoint(world: World) -> None:
    folder = world.copy("stage2")
    edit_config(folder, unfreeze_mm_vision_tower=True)
    name = "vision_model.pre_layrnorm.bias"
    tensors = load_file(folder / "model.safetensors")
    tensors[f"model.vision_tower.vision_tower.{name}"] += 0.5
    save_file(tensors, folder / "model.safetensors")
    record = world.load(folder)
    assert record.vision_tower == "vision_tower" and "was trained" in record.notes[0]
    ours = load_file(world.to / "vision_tower" / "model.safetensors")[name]
    named = load_file(world.base / "models" / "clip_tiny" / "model.safetensors")[name]
    assert torch.equal(ours, named + 0.5)
    model, _ = load_model(world.to)
    (used,) = (v for n, v in model.vision_tower.named_parameters() if name.endswith(n[6:]))
    assert torch.equal(used, ours)


def test_lora_with_a_connector_from_elsewhere(world: World) -> None:
    folder = world.copy("lora")
    (folder / "non_lora_trainables.bin").unlink()
    with pytest.raises(DataError, match=r"no non_lora_trainables.bin.*--connector"):
        world.load(folder)
    record = world.load(folder, connector=world.given / "lora" / "non_lora_trainables.bin")
    assert record.trains == "lora"
    assert load_file(world.to / "lora" / "adapter_model.safetensors")


def test_two_files_of_one_adapter_are_one(world: World) -> None:
    folder = world.copy("lora")
    tensors = torch.load(folder / "adapter_model.bin", weights_only=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    assert world.load(folder).trains == "lora"


def test_settings_that_nothing_here_reads_are_said(world: World) -> None:
    folder = world.copy("stage2")
    edit_config(folder, mm_newline_position="grid", mm_resampler_type="", mm_vision_tower_lr=2e-6)
    notes = world.load(folder).notes
    assert [note for note in notes if "mm_newline_position grid, which is not known" in note]
    assert not [note for note in notes if "mm_vision_tower_lr" in note or "resampler" in note]


def damage(folder: Path, name: str, keep: float) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * keep)])


def add_tensor(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: torch.zeros(2)}, folder / "model.safetensors")


def drop_tensor(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({n: v for n, v in tensors.items() if n != name}, folder / "model.safetensors")


Change = Callable[[Path], object]


def stating(**changes: object) -> Change:
    return lambda folder: edit_config(folder, **changes)


def tiles(sizes: object = ((56, 112),), **changes: object) -> Change:
    return stating(image_aspect_ratio="anyres", image_grid_pinpoints=sizes, **changes)


def adapting(**changes: object) -> Change:
    return lambda folder: edit_config(folder, "adapter_config.json", **changes)


def changed(
    file: str, change: Callable[[torch.Tensor], torch.Tensor], only: str | None = None
) -> Change:
    def carry_out(folder: Path) -> None:
        path = folder / file
        pickled = path.suffix == ".bin"
        tensors = torch.load(path, weights_only=True) if pickled else load_file(path)
        new = {n: change(v) if only in (None, n) else v for n, v in tensors.items()}
        torch.save(new, path) if pickled else save_file(new, path)

    return carry_out


def another_adapter(folder: Path) -> None:
    tensors = torch.load(folder / "adapter_model.bin", weights_only=True)
    save_file({n: v + 1 for n, v in tensors.items()}, folder / "adapter_model.safetensors")


def model_beside(folder: Path) -> None:
    save_file({"lm_head.weight": torch.zeros(2)}, folder / "model.safetensors")


BAD: dict[str, tuple[str, Change, str]] = {
    "no LLaVA": ("stage2", stating(mm_vision_tower=None), "names no mm_vision_tower"),
    "AnyRes": ("stage2", stating(image_aspect_ratio="anyres"), "no image_grid_pinpoints"),
    "AnyRes merge": ("stage2", stating(mm_patch_merge_type="spatial_unpad"), "makes none"),
    "AnyRes tensor": ("stage2", lambda f: add_tensor(f, "model.image_newline"), "an AnyRes model"),
    "trained tower": (
        "lora",
        stating(unfreeze_mm_vision_tower=True),
        "was trained, and the weights hold no tower",
    ),
    "newline": ("stage2", tiles(mm_patch_merge_type="spatial_unpad"), "lack image_newline"),
    "no multiple": ("stage2", tiles("[(56, 100)]"), r"\[56, 100\] is no multiple of .* 56 pixels"),
    "no sizes": ("stage2", tiles("(1x1),...,(6x6)"), "cannot be used .* pairs of width and height"),
    "sizes of text": (
        "stage2",
        tiles([["56", "112"]]),
        r"cannot be used \(Input should be",
    ),
    "other merge": (
        "stage2",
        tiles(mm_patch_merge_type="max"),
        "mm_patch_merge_type max cannot",
    ),
    "no length": ("stage2", stating(tokenizer_model_max_length=0), "0 is no number of tokens"),
    "MGM": ("stage2", stating(mm_vision_tower_aux="x"), r"Mini-Gemini \(MGM\)"),
    "MGM tensor": (
        "stage2",
        lambda f: add_tensor(f, "model.vlm_uni_query.0.weight"),
        "Mini-Gemini",
    ),
    "video": ("stage2", stating(is_video=True), "video model"),
    "linear": ("stage2", stating(mm_projector_type="linear"), "mm_projector_type is linear"),
    "CLS kept": ("stage2", stating(mm_vision_select_feature="cls_patch"), "cls_patch"),
    "start tokens": ("stage2", stating(mm_use_im_start_end=True), "mm_use_im_start_end is True"),
    "SigLIP named CLIP": ("stage2", stating(mm_vision_tower="siglip/clip_tiny"), "SigLIP"),
    "half a shard": ("stage2", lambda f: damage(f, "model.safetensors", 0.6), "not a complete"),
    "half a pickle": ("lora", lambda f: damage(f, "adapter_model.bin", 0.6), "cut off or damaged"),
    "a tensor less": ("stage2", lambda f: drop_tensor(f, "model.norm.weight"), "1 missing"),
    "another vocabulary": ("stage2", stating(vocab_size=100), "2 of another shape"),
    "other connector": ("stage2", stating(mm_dense_connector_type="none"), "0.weight is 64x96"),
    "no tower": ("stage2", stating(mm_vision_tower="openai/clip-x"), "openai/clip-x.*--tower"),
    "no base": ("lora", adapting(base_model_name_or_path="v/icuna"), "v/icuna.*--base"),
    "DoRA": ("lora", adapting(use_dora=True), "use_dora is true"),
    "PiSSA": ("lora", adapting(init_lora_weights="pissa"), 'init_lora_weights is "pissa"'),
    "a setting of a later peft": ("lora", adapting(use_kasa=True), "use_kasa is true"),
    "layers again": ("lora", adapting(layer_replication=[[0, 2], [1, 2]]), "layer_replication is"),
    "answers from a token on": ("lora", adapting(alora_invocation_tokens=[1]), "alora_invocation"),
    "another task": ("lora", adapting(task_type="SEQ_CLS"), 'task_type is "SEQ_CLS"'),
    "half a rank": ("lora", adapting(r=8.5), "r 8.5 and lora_alpha 16 must be numbers"),
    "alpha true": ("lora", adapting(lora_alpha=True), "lora_alpha true must be numbers"),
    "two adapters": ("lora", another_adapter, "and they differ: which one counts"),
    "a model beside": ("lora", model_beside, "and weights of a whole model"),
    "adapters of NaN": ("lora", changed("adapter_model.bin", lambda v: v * math.nan), "not finite"),
    "adapters of integers": ("lora", changed("adapter_model.bin", lambda v: v.char()), "is I8"),
    "a projector of infinity": (
        "lora",
        changed("non_lora_trainables.bin", lambda v: v / 0),
        "not finite .NaN or infinity.: the training diverged",
    ),
    "a projector of fp8": (
        "lora",
        changed("non_lora_trainables.bin", lambda v: v.to(torch.float8_e5m2)),
        "F8_E5M2: weights are one of F64, F32",
    ),
    "an infinite layer": (
        "stage2",
        changed("model.safetensors", lambda v: v / 0, "model.layers.1.mlp.up_proj.weight"),
        "up_proj.weight is not finite",
    ),
    "a projector twice": (
        "stage2",
        lambda f: add_tensor(f, "mm_projector.0.weight"),
        "mm_projector.0.weight.*which one counts",
    ),
    "a resampler": ("stage2", stating(mm_resampler_type="spatial_pool"), "mm_resampler_type is"),
    "quantised": ("stage2", stating(quantization_config={"bits": 4}), "quantization_config is"),
    "a million layers": ("stage2", stating(num_hidden_layers=10**6), "1000000, and .* 2 layers"),
    "no heads": ("stage2", stating(num_attention_heads=0), "renamed/config.json cannot be used"),
    "a negative width": ("stage2", stating(hidden_size=-64), "makes no language model"),
    "an unknown activation": ("stage2", stating(hidden_act="bogus"), "makes no language model"),
    "an unknown rope": ("stage2", stating(rope_scaling={"type": "x"}), "makes no language model"),
    "an unknown dtype": ("stage2", stating(dtype="float12"), "renamed/config.json cannot be"),
    "a tied head that is another": (
        "stage2",
        stating(tie_word_embeddings=True),
        "tie_word_embeddings, and lm_head.weight is not",
    ),
    "other rank": ("lora", adapting(r=4), "does not fit"),
    "nothing": (
        "stage2",
        lambda f: (f / "model.safetensors").unlink(),
        "neither weights of a model nor",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_refused_with_a_sentence_and_nothing_left(world: World, what: str) -> None:
    kind, change, said = BAD[what]
    folder = world.copy(kind)
    change(folder)
    if what == "SigLIP named CLIP":
        options: dict[str, Path | str] = {"tower": world.base / "models" / "clip_tiny"}
    else:
        options = {}
    with pytest.raises(DataError) as raised:
        world.load(folder, **options)
    assert re.search(said, str(raised.value)), raised.value
    assert not world.to.exists()


def test_tokenizer_larger_than_the_vocabulary(world: World) -> None:
    folder = world.copy("stage2")
    edit_config(folder, vocab_size=500)
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:500].clone()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(DataError, match="560 tokens and the embedding 500 rows"):
        world.load(folder)
    assert not world.to.exists()


def test_base_of_another_kind_is_refused(world: World) -> None:
    base = copied(world.base / "models" / "llm_v1", world.place / "base")
    tensors = load_file(base / "model.safetensors")
    renamed = {name.replace("model.", "gpt_neox.", 1): value for name, value in tensors.items()}
    save_file(renamed, base / "model.safetensors")
    folder = stage1(world.golden, world.place / "stage1")
    with pytest.raises(DataError, match=r"no language model of Llama's kind.*--base"):
        world.load(folder, base=base)


def test_target_must_be_empty(world: World) -> None:
    world.to.mkdir()
    (world.to / ".unfinished").mkdir()  # of a killed import
    (world.to / ".unfinished" / "left").touch()
    record = world.load(world.given / "stage2")
    assert not (world.to / ".unfinished").exists() and record.files
    with pytest.raises(UsageError, match="is not empty"):
        world.load(world.given / "stage2")


def test_import_json_that_was_edited(world: World) -> None:
    world.load(world.given / "stage1_into_checkpoint")
    path = world.to / "import.json"
    path.write_text(path.read_text().replace('"dci"', '"sci"'))
    with pytest.raises(DataError, match="it was edited"):
        read_imported(world.to)
