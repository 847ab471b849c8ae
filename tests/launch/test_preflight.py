"""What is checked before a run directory exists: everything a run reads, each problem named with
its place.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save
from tokenizers import Tokenizer

from densekit.errors import DataError, UsageError
from densekit.launch.chain import chain_math
from densekit.launch.launchers.docker.launcher import Docker
from densekit.launch.launchers.local import Local
from densekit.launch.preflight import preflight
from densekit.recipes.load import load_recipe, recipe_names
from densekit.spec.check import refuse
from densekit.spec.roots import Roots
from tests.support.files import write_json
from tests.support.launching import LLM_CONFIG, STAGE_1, TOWER_CONFIG, entry, make_pair


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    make_pair(folder)
    return folder


@pytest.fixture
def mine(tmp_path: Path, good: Path) -> Path:
    """A folder of one's own with two recipes and all they read."""
    return Path(shutil.copytree(good, tmp_path / "mine"))


def check(mine: Path, *overrides: str, name: str = "one.yaml") -> None:
    refuse(
        preflight(
            load_recipe(str(mine / name), overrides),
            Roots(data=mine, models=mine, cache=mine / "cache"),
        ).checks
    )


def test_a_good_pair_passes(mine: Path) -> None:
    check(mine)
    check(mine, name="two.yaml")


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).assets])
def test_what_the_kit_makes_is_not_looked_for(tmp_path: Path, name: str) -> None:
    refuse(
        preflight(load_recipe(name), Roots(data=tmp_path, models=tmp_path, cache=tmp_path)).checks
    )


def test_what_comes_with_a_package_names_its_command(tmp_path: Path) -> None:
    recipe = load_recipe("tiny_easy_vqa_dci_stage1")
    found = preflight(recipe, Roots(data=tmp_path, models=tmp_path, cache=tmp_path)).checks
    failed = [check for check in found if check.state == "fail"]
    assert len(failed) == 3 and all("`make easy-vqa` makes it" in each.message for each in failed)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.annotations=/nope.json", "/nope.json is missing"),
        ("models.language_model=/nope", "models.language_model: no model in /nope"),
        ("models.vision_tower=/nope", "models.vision_tower: no model in /nope"),
        ("models.tokenizer=/nope", "no tokenizer in /nope"),
        ("probe.questions=/nope.json", "/nope.json is missing"),
    ],
)
def test_what_a_tiny_recipe_takes_from_elsewhere_is_looked_for(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        refuse(preflight(load_recipe("tiny_stage2", [override]), Roots(cache=tmp_path)).checks)


def _annotations(value: object) -> Callable[[Path], object]:
    return lambda mine: write_json(mine / "one.json", value)


TURN = {"from": "human", "value": "Why?"}
INDEX = {"weight_map": {"b": "model-2.safetensors"}}
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no language model": (
        lambda m: shutil.rmtree(m / "llm"),
        r"models.language_model: no model in .*llm \(config",
    ),
    "no tower": (
        lambda m: shutil.rmtree(m / "tower"),
        "models.vision_tower: no model in .*tower .*download it there",
    ),
    "broken config": (
        lambda m: write_json(m / "llm/config.json", "{"),
        r"llm/config.json cannot be",
    ),
    "config is a list": (
        lambda m: write_json(m / "llm/config.json", []),
        "llm/config.json must hold a JSON object",
    ),
    "no weights": (
        lambda m: (m / "llm/model.safetensors").unlink(),
        "language_model: .* holds no .safetensors weigh",
    ),
    "half a download": (
        lambda m: write_json(m / "llm/model.safetensors.index.json", INDEX),
        "language_model: .*llm lacks model-2.safetensors; finish the download",
    ),
    "no preprocessor": (
        lambda m: (m / "tower/preprocessor_config.json").unlink(),
        "preprocessor_config.json is missi",
    ),
    "no tokenizer": (
        lambda m: (m / "llm/tokenizer.json").unlink(),
        "no tokenizer in .*llm: it needs tokenizer.model",
    ),
    "broken tokenizer": (lambda m: write_json(m / "llm/tokenizer.json", "{"), "tokenizer in .*llm"),
    "no annotations": (
        lambda m: (m / "one.json").unlink(),
        r"one.json is missing",
    ),
    "broken annotations": (_annotations('[{"id":\n 1,'), "one.json: line 2, column .*broken JSON"),
    "no entries": (_annotations([]), "one.json: the list is empty"),
    "turns out of order": (
        _annotations([entry(), {"conversations": [TURN, TURN]}]),
        "one.json: entry 1: turn 1 is from 'human' where 'gpt' is due",
    ),
    "tag without image": (
        _annotations([entry(), entry(), entry(image=None)]),
        "one.json: entry 2: tag without an im",
    ),
    "image without tag": (
        _annotations([entry(question="?")]),
        "entry 0: image without a <image> tag; add the tag",
    ),
    "missing image": (
        _annotations([entry(), entry(image="b.png")]),
        "entry 1: image .*b.png does not exist; 1 entry lacks a usable image; check the",
    ),
    "no image folder": (
        lambda m: shutil.rmtree(m / "images"),
        "entry 0: image .*a.png does not exist; 3 entries lack a usable image: also 1 .a.png: does",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(mine: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    damage(mine)
    with pytest.raises(DataError, match=message) as caught:
        check(mine)
    assert "\n" not in str(caught.value)


def test_only_the_plain_template_needs_a_tag(mine: Path) -> None:
    write_json(mine / "two.json", [entry(question="?")])
    check(mine, name="two.yaml")


def test_another_file_than_the_published_one(mine: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"one.json has 3 entries, recipe one expects 558128: it is not the published",
    ):
        check(mine, "data.samples=558128")
    check(mine, "data.samples=3")


def test_projector_weights(mine: Path) -> None:
    given, path = "models.connector=models:c.safetensors", mine / "c.safetensors"
    with pytest.raises(DataError, match=r"models.connector: .*c.safetensors does not exist"):
        check(mine, given)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"models.connector: .*c.safetensors is not a complete"):
        check(mine, given)
    weights: dict[str, Any] = {"0.weight": np.zeros((8, 16)), "2.weight": np.zeros((8, 8))}
    weights |= {f"{number}.bias": np.zeros(8) for number in (0, 2)}
    path.write_bytes(save(weights))
    with pytest.raises(DataError, match=r"c.safetensors: 0.weight is 8 x 16, .* need 8 x 24"):
        check(mine, given)
    path.write_bytes(save({**weights, "0.weight": np.zeros((8, 24))}))
    check(mine, given)


def test_held_out_questions(mine: Path) -> None:
    probe = f"probe={{questions: {mine}/held_out.json, images: {mine}/images}}"
    with pytest.raises(DataError, match=r"held_out.json is missing"):
        check(mine, probe, name="two.yaml")
    write_json(mine / "held_out.json", [entry(), entry(image="b.png")])
    with pytest.raises(DataError, match=r"held_out.json: entry 1: image .*b.png does not exist"):
        check(mine, probe, name="two.yaml")
    shutil.copy(mine / "images" / "a.png", mine / "images" / "b.png")
    check(mine, probe, name="two.yaml")
    unanswered = entry()
    unanswered["conversations"] = unanswered["conversations"][:1]
    write_json(mine / "held_out.json", [entry(), unanswered])
    with pytest.raises(
        DataError, match=r"entry 1: a held-out question needs an image and an answer"
    ):
        check(mine, probe, name="two.yaml")


def test_roots_are_resolved(mine: Path) -> None:
    (mine / "rooted.yaml").write_text(
        STAGE_1.replace("llm", "models:llm").replace("one.json", "data:one.json")
    )
    check(mine, name="rooted.yaml")
    with pytest.raises(DataError, match=r"models.language_model: no model in .*elsewhere/llm"):
        refuse(
            preflight(
                load_recipe(str(mine / "rooted.yaml")), Roots(data=mine, models=mine / "elsewhere")
            ).checks
        )


def _llm(**changes: object) -> Callable[[Path], object]:
    return lambda mine: write_json(mine / "llm/config.json", {**LLM_CONFIG, **changes})


def _processor(**changes: object) -> Callable[[Path], object]:
    value = {"size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, **changes}
    return lambda mine: write_json(mine / "tower/preprocessor_config.json", value)


def _index(weight_map: object) -> Callable[[Path], object]:
    value = {"weight_map": weight_map}
    return lambda mine: write_json(mine / "llm/model.safetensors.index.json", value)


def _weights(**tensors: tuple[int, ...]) -> Callable[[Path], object]:
    data = save({name.replace("__", "."): np.zeros(shape) for name, shape in tensors.items()})
    return lambda mine: (mine / "llm/model.safetensors").write_bytes(data)


def _pickle(mine: Path) -> None:
    (mine / "llm/model.safetensors").rename(mine / "llm/pytorch_model.bin")


def _other_pickle(mine: Path) -> None:
    (mine / "llm/model.safetensors").rename(mine / "llm/mm_projector.bin")


def _killed(mine: Path) -> None:
    _pickle(mine)
    (mine / "llm/conversion.json").touch()
    (mine / "llm/model-00001-of-00002.safetensors").touch()


def _stray(mine: Path) -> None:
    (mine / "llm/model.safetensors").rename(mine / "llm/x.safetensors")
    (mine / "llm/pytorch_model.bin").write_bytes(b"")


def _two_files(mine: Path) -> None:
    weights = save({"a.weight": np.zeros(2)})
    names = ("model.safetensors", "model-2.safetensors")
    for name in names:
        (mine / "llm" / name).write_bytes(weights)
    _index({"a.weight": names[0], "b.weight": names[1]})(mine)


def _int8(mine: Path) -> None:
    weights = save({"a.weight": np.zeros(2, dtype=np.int8)})
    (mine / "llm/model.safetensors").write_bytes(weights)


def _one_beside_two(mine: Path) -> None:
    for name in "ab":
        (mine / f"llm/{name}.safetensors").write_bytes(save({name: np.zeros(2)}))
    _weights(a=(3,))(mine)
    _index({"a": "a.safetensors", "b": "b.safetensors"})(mine)


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "LLaVA of transformers": (
        _llm(model_type="llava", text_config={}, vision_config={}),
        r"llm/config.json: model_type llava is a whole multimodal model, not a language",
    ),
    "LLaVA of the first code": (
        _llm(model_type="llava_llama", mm_vision_tower="openai/clip"),
        "model_type llava_llama is a whole multimodal model",
    ),
    "another composite": (_llm(model_type="x", vision_config={}), "is a whole multimodal model"),
    "quantised": (_llm(quantization_config={"bits": 4}), "the weights are quantised"),
    "quantised by nothing": (_llm(quantization_config={}), "the weights are quantised"),
    "layers without end": (_llm(num_hidden_layers=10**7), "not 10000000 .at most 1000"),
    "dropout of all": (_llm(attention_dropout=1.5), "attention_dropout must be a number from 0"),
    "dropout in words": (_llm(resid_pdrop="0.1"), "resid_pdrop must be a number from 0"),
    "code of its own": (
        _llm(model_type="internlm2", auto_map={"AutoModel": "x.X"}),
        r"internlm2 needs Python code from the folder itself \(auto_map\), which is never run",
    ),
    "no type": (_llm(model_type=None), "model_type is None; a type that transformers knows"),
    "encoder-decoder": (_llm(is_encoder_decoder=True), "is an encoder-decoder"),
    "hidden size": (
        _llm(hidden_size=9),
        "hidden_size 9 is not a multiple of num_attention_heads 2",
    ),
    "key heads": (
        _llm(num_attention_heads=4, num_key_value_heads=3),
        "num_attention_heads 4 is not a multiple of num_key_value_heads 3",
    ),
    "a count that is none": (_llm(vocab_size=True), "vocab_size must be a positive integer, not T"),
    "a count beyond reason": (_llm(hidden_size=10**300), "hidden_size must be a positive integer"),
    "dtype": (_llm(torch_dtype="float8_e4m3fn"), "torch_dtype is float8_e4m3fn; weights in one of"),
    "null index": (_index(None), r"index.json: `weight_map` must be an object of tensors"),
    "index of pickles": (
        _index({"a": "pytorch_model.bin"}),
        r"index.json puts a into pytorch_model.bin: only .safetensors files inside the folder",
    ),
    "index that leaves the folder": (
        _index({"a": "../tower/model.safetensors"}),
        r"index.json puts a into ../tower/model.safetensors: only .safetensors files inside",
    ),
    "index of another file": (
        _index({"a.weight": "model.safetensors"}),
        "model.safetensors lacks a.weight, which .*index.json says",
    ),
    "a tensor in two files": (
        _two_files,
        r"a.weight in model.safetensors and model-2.safetensors: which one counts is not said",
    ),
    "one file beside those of an index": (
        _one_beside_two,
        "holds model.safetensors beside .*index.json and its files",
    ),
    "pickle alone": (
        _pickle,
        r"only pytorch_model.bin \(no pickle .*`densekit convert /.*/llm`, or",
    ),
    "other pickle": (_other_pickle, r"only mm_projector.bin .*not named as a model's weights are"),
    "conversion that was killed": (
        _killed,
        r"was being converted .*run `densekit convert /.*/llm`",
    ),
    "numbers without their scales": (_int8, "llm: a.weight is I8 in model.safetensors: weights"),
    "stray file beside a pickle": (_stray, "llm holds x.safetensors but neither model.safetensors"),
    "Git LFS": (
        lambda m: (m / "llm/model.safetensors").write_text("version https://git-lfs.github.com/x"),
        "llm/model.safetensors is a pointer of Git LFS",
    ),
    "embedding of another model": (
        _weights(model__embed_tokens__weight=(5, 8)),
        r"the embedding in the weights is 5 x 8, config.json says 4 x 8",
    ),
    "tokens without a row": (
        lambda m: (
            write_json(m / "llm/config.json", {**LLM_CONFIG, "vocab_size": 1})
            and _added(m, {"<a>": 2, "<b>": 3})
        ),
        r"has ids 1 to 3, but the embedding of .*llm has 1 rows \(vocab_size\), for ids 0 to 0",
    ),
    "processor of another tower": (
        _processor(size=32),
        r"makes images of 32 pixels, the tower takes 16 \(image_size",
    ),
    "tower's hidden size": (
        lambda m: write_json(m / "tower/config.json", {**TOWER_CONFIG, "hidden_size": 9}),
        "tower/config.json: hidden_size 9 is not a multiple",
    ),
    "a layer that the tower lacks": (
        lambda m: write_json(m / "tower/config.json", {**TOWER_CONFIG, "num_hidden_layers": 2}),
        r"connector: hidden_states\[\d\] does not exist in a vision tower of 2 layers",
    ),
    "tower of another type": (
        lambda m: write_json(m / "tower/config.json", {**TOWER_CONFIG, "model_type": "dinov2"}),
        "models.vision_tower: .* has model_type dinov2; densekit trains with clip and siglip",
    ),
}


def _added(mine: Path, tokens: dict[str, int]) -> Path:
    place = mine / "llm/tokenizer.json"
    tokenizer = Tokenizer.from_file(str(place))
    tokenizer.add_tokens(list(tokens))
    tokenizer.save(str(place))
    return place


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_be_trained_is_refused_by_its_files(mine: Path, name: str) -> None:
    damage, message = MODELS[name]
    damage(mine)
    with pytest.raises(DataError, match=message):
        check(mine)


def test_a_known_type_may_bring_code_that_is_not_needed(mine: Path) -> None:
    """As the published Phi-2 does."""
    _llm(auto_map={"AutoConfig": "configuration_phi.PhiConfig"})(mine)
    check(mine)


def test_everything_is_said_at_once_grouped_by_subject(mine: Path) -> None:
    _llm(vocab_size=None)(mine)
    _llm(quantization_config={"bits": 4}, torch_dtype="int8")(mine)
    _processor(size=32)(mine)
    write_json(mine / "one.json", [entry(image="b.png"), entry(image="c.png")])
    with pytest.raises(DataError) as caught:
        check(mine)
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 problems"
    assert [line for line in lines if line.endswith(":")] == [
        "one: language model:",
        "one: vision tower:",
        "one: images:",
    ]
    assert sum(line.startswith("  - ") for line in lines) == 4


def test_the_template_is_tried_on_the_whole_file(mine: Path) -> None:
    long = entry()
    long["conversations"] *= 2
    long["conversations"][2] = {"from": "human", "value": "Why?"}
    write_json(mine / "one.json", [entry(), long, entry(), long])
    with pytest.raises(
        DataError, match=r"one.json: entry 1: template plain: expected 2 turns, found 4 \(1 more: 3"
    ):
        check(mine)
    write_json(mine / "two.json", [entry(), long])
    check(mine, name="two.yaml")


def test_images_of_more_than_8_bits_are_counted(mine: Path) -> None:
    Image.new("I;16", (4, 4)).save(mine / "images" / "a.png")
    roots = Roots(data=mine, models=mine, cache=mine / "cache")
    recipe = load_recipe(str(mine / "one.yaml"))
    (warning,) = [found for found in preflight(recipe, roots).checks if found.state == "warn"]
    assert "3 entries have images of more than 8 bits a channel (entry 0, 1, 2)" in warning.message
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        check(mine, "semantics=fixed")


@pytest.mark.parametrize("kind", ["absolute", "escaping", "link"])
def test_images_that_a_container_would_not_see_are_refused_for_containers(
    mine: Path, tmp_path: Path, kind: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(mine / "images", elsewhere)
    (mine / "images").mkdir()
    (mine / "images/link").symlink_to(elsewhere)
    image = {"absolute": f"{elsewhere}/a.png", "escaping": "../../elsewhere/a.png"}
    write_json(mine / "one.json", [entry(image=image.get(kind, "link/a.png"))])
    recipe = load_recipe(str(mine / "one.yaml"))
    roots = Roots(data=mine, models=mine, cache=mine / "cache")
    assert chain_math([recipe], roots, launcher=Local())
    with pytest.raises(UsageError, match=rf"images of one are outside .*, in {elsewhere}, which a"):
        chain_math([recipe], roots, launcher=Docker())
    everything = Roots(data=tmp_path, models=mine, cache=mine / "cache")
    assert chain_math([recipe], everything, launcher=Docker()), "the data root is mounted"


@pytest.mark.parametrize("policy", ["drop", "replace"])
def test_a_declared_policy_admits_bad_images_up_to_its_ceiling(mine: Path, policy: str) -> None:
    write_json(mine / "one.json", [entry(), entry(image="b.png"), entry()])
    given = (f"data.missing={policy}", "data.missing_ceiling=0.5")
    recipe = load_recipe(str(mine / "one.yaml"), given)
    found = preflight(recipe, Roots(data=mine, models=mine, cache=mine / "cache"))
    refuse(found.checks)
    (warning,) = [check for check in found.checks if check.state == "warn"]
    assert "1 entry is " in warning.message and len(found.inputs["missing"]) == 64
    with pytest.raises(DataError, match=r"1 of 3 entries lack a usable image .* more than"):
        check(mine, given[0])


def test_every_bad_image_is_listed(mine: Path) -> None:
    write_json(mine / "one.json", [entry(image=f"{number}.png") for number in range(30)])
    with pytest.raises(
        DataError, match=r"30 entries lack .* and 20 more \(all of them: .*bad.txt\)"
    ):
        check(mine)
    listed = (mine / "cache/images/one_bad.txt").read_text().splitlines()
    assert len(listed) == 30 and listed[7] == "7\t7.png\tdoes not exist"


def test_json_lines_are_read_and_said(mine: Path) -> None:
    (mine / "one.json").write_text("\n".join([json.dumps(entry())] * 2))
    recipe = load_recipe(str(mine / "one.yaml"))
    found = preflight(recipe, Roots(data=mine, models=mine, cache=mine / "cache"))
    refuse(found.checks)
    (note,) = [check.message for check in found.checks if check.state == "warn"]
    assert "one.json is JSON Lines (one entry a line): its 2 entries are read" in note
