"""What is checked before a run directory exists: everything a run reads, each problem named with
its place.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from densekit.errors import DataError
from densekit.launch.preflight import preflight
from densekit.recipes.load import load_recipe, recipe_names
from densekit.spec.roots import Roots
from tests.support.files import write_json
from tests.support.launching import STAGE_1, entry, make_pair


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
    preflight(
        load_recipe(str(mine / name), overrides),
        Roots(data=mine, models=mine, cache=mine / "cache"),
    )


def test_a_good_pair_passes(mine: Path) -> None:
    check(mine)
    check(mine, name="two.yaml")


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("tiny")])
def test_what_the_kit_makes_is_not_looked_for(tmp_path: Path, name: str) -> None:
    preflight(load_recipe(name), Roots(data=tmp_path, models=tmp_path, cache=tmp_path))


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
        preflight(load_recipe("tiny_stage2", [override]), Roots(cache=tmp_path))


def _annotations(value: object) -> Callable[[Path], object]:
    return lambda mine: write_json(mine / "one.json", value)


TURN = {"from": "human", "value": "Why?"}
INDEX = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
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
        "entry 1: image .*b.png does not exist; 1 of 2",
    ),
    "no image folder": (
        lambda m: shutil.rmtree(m / "images"),
        "entry 0: image .*a.png does not exist; 3 of 3",
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
    with pytest.raises(DataError, match=r"models.connector: .*c.safetensors does not exist"):
        check(mine, "models.connector=models:c.safetensors")
    (mine / "c.safetensors").write_bytes(b"")
    check(mine, "models.connector=models:c.safetensors")


def test_held_out_questions(mine: Path) -> None:
    probe = f"probe={{questions: {mine}/held_out.json, images: {mine}/images}}"
    with pytest.raises(DataError, match=r"held_out.json is missing"):
        check(mine, probe, name="two.yaml")
    write_json(mine / "held_out.json", [entry(), entry(image="b.png")])
    with pytest.raises(DataError, match=r"held_out.json: entry 1: image .*b.png does not exist"):
        check(mine, probe, name="two.yaml")
    write_json(mine / "images" / "b.png", "")
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
        preflight(load_recipe(str(mine / "rooted.yaml")), Roots(models=mine / "elsewhere"))
