"""What an evaluation asks, decided before it begins: data found, order, batches, limits."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from densekit.errors import DataError
from densekit.evaluate.data import BenchmarkData, folder_of, image_path, present, read_data
from densekit.evaluate.flips import sample_images
from densekit.evaluate.planning import limited, plan_benchmark
from densekit.evaluate.protocols import get_protocol
from densekit.files.json_files import write_json
from densekit.spec.roots import Roots
from tests.evaluate.made import question


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    folder = tmp_path / "data" / "benchmarks" / "MME" / "images"
    folder.mkdir(parents=True)
    for number in range(1, 5):
        (folder / f"i{number}.png").write_bytes(bytes([number]))
    return Roots(data=tmp_path / "data", models=tmp_path, cache=tmp_path / "cache")


def data(*questions: Any, name: str = "mme") -> BenchmarkData:
    protocol = get_protocol(name).model_copy(update={"expected": None, "scorer": None})
    images = f"{folder_of(name)}/images"
    return BenchmarkData(protocol=protocol, questions=questions, images=images)


ASKED = (
    question("b", text="Is it a longer question?", image="i2"),
    question("c", text="Is it?", image="i1"),
    question("a", text="Is it?", image="i3"),
)


def test_a_plan_asks_in_the_words_of_the_protocol(roots: Roots) -> None:
    asked, plan = plan_benchmark(data(*ASKED), roots, limit=None, batch_size=None)
    assert [line.question_id for line in plan] == ["a", "c", "b"]
    assert [line.batch for line in plan] == [0, 1, 2]
    assert plan[0].asked == "Is it?\nAnswer the question using a single word or phrase."
    assert plan[0].image == "data:benchmarks/MME/images/i3.png"
    assert plan[0].image_sha256 == hashlib.sha256(b"\3").hexdigest()
    assert (asked.questions, asked.available, asked.batch_size) == (3, 3, 1)


def test_batches_and_sampled_answers(roots: Roots) -> None:
    _, plan = plan_benchmark(data(*ASKED), roots, limit=None, batch_size=2)
    assert [line.batch for line in plan] == [0, 0, 1]
    folder = roots.resolve("data:benchmarks/MMMU/images")
    folder.mkdir(parents=True)
    (folder / "i1").write_bytes(b"1")
    choice = question("1", "A", options=("x", "y"))
    asked, _ = plan_benchmark(data(choice, name="mmmu"), roots, limit=None, batch_size=8)
    assert asked.batch_size == 1


@pytest.mark.parametrize(
    "change",
    [
        {"text": "Was it?"},
        {"image": "i4"},
        {"id": "z"},
    ],
)
def test_the_hash_of_a_plan_is_what_is_asked(roots: Roots, change: dict[str, str]) -> None:
    first, _ = plan_benchmark(data(*ASKED), roots, limit=None, batch_size=None)
    other = (*ASKED[:2], replace(ASKED[2], **change))  # type: ignore[arg-type]
    second, _ = plan_benchmark(data(*other), roots, limit=None, batch_size=None)
    assert first.plan_sha256 != second.plan_sha256 and first.data_sha256 != second.data_sha256
    again, _ = plan_benchmark(data(*reversed(ASKED)), roots, limit=None, batch_size=None)
    assert again.plan_sha256 == first.plan_sha256


def test_a_changed_byte_of_an_image_is_another_plan(roots: Roots) -> None:
    first, _ = plan_benchmark(data(*ASKED), roots, limit=None, batch_size=None)
    roots.resolve("data:benchmarks/MME/images/i1.png").write_bytes(b"x")
    second, _ = plan_benchmark(data(*ASKED), roots, limit=None, batch_size=None)
    assert first.plan_sha256 != second.plan_sha256 and first.data_sha256 == second.data_sha256


def test_a_limit_takes_whole_images_by_hash() -> None:
    many = [question(number, image=f"i{number // 3}") for number in range(90)]
    some = limited(many, 7)
    assert len(some) == 21 and {q.image for q in some} != {f"i{n}" for n in range(7)}
    assert limited(list(reversed(many)), 7) == list(reversed(some))
    assert limited(many, 1000) == many
    alone = [question(number, image=None) for number in range(10)]
    assert len(limited(alone, 3)) == 3
    assert sample_images(many, 15) == 5 and sample_images(many, 10**6) == 30


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ((ASKED[0], ASKED[0]), r"2 questions of MME-P, and 1 id more than once \(b\)"),
        ((question("1", image="i9"),), "MME-P: image i9 is not in .*images; put it there"),
        ((question("1", image="../x"),), r"MME-P: image ../x leads out of data:benchmarks/MME"),
    ],
)
def test_what_cannot_be_asked(roots: Roots, questions: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        plan_benchmark(data(*questions), roots, limit=None, batch_size=None)


def test_another_version_of_the_data_is_refused(roots: Roots) -> None:
    whole = replace(data(*ASKED), protocol=get_protocol("gqa"))
    with pytest.raises(DataError, match=r"GQA has 12,578 questions .* and this data has 3"):
        plan_benchmark(whole, roots, limit=1, batch_size=None)


@pytest.mark.parametrize(
    ("name", "changed", "problem"),
    [
        ("gqa", {"gold": ()}, "question 1 has 0 right answers"),
        ("seed", {"options": ()}, "question 1 has no `options`"),
        ("vizwiz", {"gold": ("a",)}, "needs 10 people's answers"),
        ("mmb", {"id": "1000001"}, "1 of 1 questions lack their first row"),
        ("mme", {"gold": ("yes",), "category": "count"}, "MME asks 2 questions about an image"),
    ],
)
def test_questions_that_no_answer_scores_are_not_asked(
    roots: Roots, name: str, changed: dict[str, Any], problem: str
) -> None:
    right = {"gold": "A", "options": ("x", "y"), "category": "image/1"}
    protocol = get_protocol(name).model_copy(update={"expected": None})
    asked = replace(data(question("1", **{**right, **changed})), protocol=protocol)
    with pytest.raises(
        DataError, match=f"no answers to these questions could be scored .*{problem}"
    ):
        plan_benchmark(asked, roots, limit=None, batch_size=None)


def test_what_is_here_is_found(roots: Roots) -> None:
    assert present(None, roots) == ()
    with pytest.raises(
        DataError, match=r"MME-P is not in .*MME: .* mme.jsonl .*`densekit fetch MME`"
    ):
        read_data("mme", None, roots)
    folder = roots.resolve(folder_of("mme"))
    line = '{"id": "1", "text": "Is it?", "image": "i1", "gold": ["yes"], "category": "count"}\n'
    (folder / "mme.jsonl").write_text(line)
    assert present(None, roots) == ("mme",)
    found = read_data("mme", None, roots)
    assert image_path(found, "i1", roots) == "data:benchmarks/MME/images/i1.png"
    with pytest.raises(DataError, match="the recipe of this model has none"):
        read_data("held_out", None, roots)


def test_pope_is_read_as_it_was_published(roots: Roots) -> None:
    folder = roots.resolve(folder_of("pope"))
    (folder / "val2014").mkdir(parents=True)
    row = '{"question_id": 1, "image": "COCO_1.jpg", "text": "Is there a dog?", "label": "no"}\n'
    for category in ("random", "popular", "adversarial"):
        (folder / f"coco_pope_{category}.json").write_text(row)
    found = read_data("pope", None, roots)
    assert [q.id for q in found.questions] == ["random/1", "popular/1", "adversarial/1"]
    assert found.images == "data:benchmarks/POPE/val2014"
    assert found.questions[0].gold == ("no",) and found.questions[1].category == "popular"


def test_held_out_questions_of_a_file(tmp_path: Path) -> None:
    from densekit.evaluate.data import held_out_questions, shuffled

    turns = [{"from": "human", "value": "<image>\nWhich?"}, {"from": "gpt", "value": "Red"}]
    entries = [{"id": str(n), "image": f"{n}.png", "conversations": turns} for n in range(8)]
    write_json(tmp_path / "held_out.json", entries)
    questions = held_out_questions(tmp_path / "held_out.json")
    assert questions[3].image == "3.png" and questions[3].gold == ("Red",)
    mixed = shuffled(questions, seed=42)
    assert [q.id for q in mixed] == [q.id for q in questions]
    assert sorted(str(q.image) for q in mixed) == [f"{n}.png" for n in range(8)]
    assert [q.image for q in mixed] != [q.image for q in questions]
    write_json(tmp_path / "bad.json", [{"id": "1", "image": "a.png", "conversations": turns[:1]}])
    with pytest.raises(DataError, match="a held-out question needs an image and an answer"):
        held_out_questions(tmp_path / "bad.json")
