"""Lengths in tokens, what a subject is, and the report of an examination."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from densekit.data.doctor.examine import SAMPLED_ENTRIES, Request, examine
from densekit.data.doctor.report import as_json, list_findings
from densekit.data.doctor.subject import find_subject
from densekit.errors import DataError, UsageError
from densekit.spec.roots import Roots
from tests.support.damaged_data import World, turns

WORDS = ("a", "b", "cat", "USER:", "ASSISTANT:", "What?", "</s>")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """With a tokenizer of one token a word."""
    world = World(tmp_path)
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    vocabulary = {word: number for number, word in enumerate(("<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    world.use(tokenizer=folder, semantics="fixed", max_length=60, image_tokens=10)
    return world


def kinds(world: World, request: Request) -> dict[str, list[str]]:
    found = world.examine(request)
    return {group.kind.name: [p for p, _ in group.places] for group in found.findings.groups()}


def test_tokens_are_counted_with_those_of_the_image(world: World) -> None:
    found = world.examine(Request())
    assert list(found.findings) == [] and found.tokens.total() == 8
    without = world.examine(Request(), image_tokens=1)
    assert max(found.tokens) == max(without.tokens) + 9


def test_what_is_cut_off_and_what_teaches_nothing_is_found(world: World) -> None:
    world.entries[1]["conversations"] = turns("<image>\nWhat?", "cat " * 30)
    world.entries[2]["conversations"] = turns("<image>\n" + "a " * 60, "cat")
    world.entries[7]["conversations"] = turns("a " * 60, "cat")
    found = kinds(world, Request())
    assert found == {
        "too_long_tokens": ["entry 1", "entry 2", "entry 7"],
        "nothing_learnt": ["entry 2", "entry 7"],
    }
    assert found == kinds(world, Request(depth="full"))
    lengths = world.examine(Request()).tokens
    assert max(lengths) > 60 + 20, "as they are before the cut"


def test_labels_that_the_official_walk_masks_are_found(world: World) -> None:
    world.use(semantics="faithful", max_length=200)
    assert set(kinds(world, Request())) == {"labels_masked"}


def test_a_tokenizer_that_cannot_be_used_is_one_finding(world: World, tmp_path: Path) -> None:
    (tmp_path / "tokenizer/tokenizer.json").write_text("{}")
    assert list(kinds(world, Request())) == ["tokenizer"]


def test_of_a_long_file_a_sample_is_counted_and_words_tell_the_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SAMPLED_ENTRIES > 8
    monkeypatch.setattr("densekit.data.doctor.examine.SAMPLED_ENTRIES", 3)
    for number in (6, 7):
        world.entries[number]["conversations"] = turns(f"What? {number}", "cat " * 70)
    found = kinds(world, Request())
    assert sum(map(len, found.values())) == 2
    assert set(found) <= {"too_long_tokens", "too_long_words"}
    assert world.examine(Request()).tokens.total() == 3
    assert list(kinds(world, Request(depth="full"))) == ["too_long_tokens"]


def test_a_report_holds_everything(world: World) -> None:
    world.image(0).unlink()
    for entry in world.entries[1:6]:
        entry["id"] = "same"
    world.entries += [{**world.entries[7], "id": "same"} for _ in range(12)]
    found = world.examine(Request(depth="full"))
    listed = list_findings(found, world.cache)
    report = json.loads(json.dumps(as_json(found, listed)))
    assert report["schema"] == 1 and report["ok"] is False
    assert (report["errors"], report["notes"]) == (1, 16 + 12)
    assert report["entries"] == {"count": 20, "with_image": 6, "text_only": 14}
    assert report["images"]["there"] == report["images"]["decoded"] == 5
    assert report["composition"] == [
        {"folder": "a", "entries": 3, "images": 3, "files": 2},
        {"folder": "b", "entries": 3, "images": 3, "files": 3},
    ]
    for name in ("turns", "words", "tokens"):
        assert sum(part["count"] for part in report["lengths"][name]) == 20
    groups = {group["kind"]: group for group in report["findings"]}
    assert groups["duplicate_id"]["count"] == 16 and len(groups["duplicate_id"]["first"]) == 10
    assert groups["missing_image"]["first"] == [{"place": "a/0.jpg (entry 0)", "detail": ""}]
    assert listed is not None
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert len(lines) == 29 and lines[0]["kind"] == "missing_image"
    assert report["certificate"]["files"] == 5 and len(report["certificate"]["root"]) == 64


def test_subjects_by_name(tmp_path: Path) -> None:
    roots = Roots(data=tmp_path)
    recipe = find_subject("vicuna7b_clip_stage2", roots)
    data_set = find_subject("LLaVA-Instruct-150K", roots)
    assert recipe.annotations == tmp_path / "LLaVA-Instruct-150K/llava_v1_5_mix665k.json"
    assert (data_set.annotations, data_set.images) == (recipe.annotations, recipe.images)
    assert recipe.template == data_set.template == "v1" and recipe.image_tokens == 576
    assert recipe.data_set is not None and recipe.data_set.entries is not None
    assert find_subject("MGM-Instruction", roots).missing == "drop"
    mine = find_subject("x/mine.jsonl", roots)
    assert (mine.images, mine.template, mine.data_set) == (Path("x"), None, None)
    assert find_subject("mine.json", roots, Path("y")).images == Path("y")
    with pytest.raises(UsageError, match="is no recipe, no data set of the catalog"):
        find_subject("nothing", roots)
    with pytest.raises(UsageError, match="no recipe trains on GQA"):
        find_subject("GQA", roots)


def test_nothing_there_is_one_finding(tmp_path: Path) -> None:
    subject = find_subject("LLaVA-Pretrain", Roots(data=tmp_path))
    found = examine(subject, Request(), tmp_path / "cache")
    ((kind, place, detail),) = found.findings
    assert kind == "annotations" and place == str(subject.annotations)
    assert "there is no such file; `densekit fetch" in detail and found.errors == 1
    assert as_json(found, None)["entries"]["count"] == 0
    assert DataError.exit_code == 3
