"""Official answer files and the benchmarks' own question files, and what is wrong with one."""

import json
from pathlib import Path

import pytest

from densekit.errors import DataError
from densekit.evaluate.answer_files import read_llava
from densekit.evaluate.labels import read_questions
from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.questions import Question
from densekit.runs.benchmarks import Answer
from tests.evaluate.made import question, scored

S = "\nAnswer the question using a single word or phrase."


def _lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _read(name: str, path: Path) -> list[Question]:
    return read_questions(get_protocol(name), path)


def test_questions_as_json_lines(tmp_path: Path) -> None:
    row = {"id": "1", "text": "How long?", "image": None, "gold": ["1.2"], "precision": 1}
    (read,) = _read("mathvista", _lines(tmp_path / "q.jsonl", {**row, "answer_type": "float"}))
    assert read == question(
        1, "1.2", text="How long?", image=None, answer_type="float", precision=1
    )
    for change, message in (
        ({"answer": "x"}, r"line 1 has `answer`, which is no field of a question \(answer_type, "),
        ({"gold": "1.2"}, "line 1: gold: Input should be a valid list"),
        ({"answer_type": "letter"}, "line 1: answer_type: "),
    ):
        with pytest.raises(DataError, match=message):
            _read("mathvista", _lines(tmp_path / "q.jsonl", {**row, **change}))


@pytest.mark.parametrize(("precision", "right"), [("1", 1.0), ("1.0", 0.0)])
def test_precision_stays_what_the_file_holds(precision: str, right: float, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"id": "1", "text": "How long?", "image": null, "gold": ["1.2"], "answer_type": "float", '
        f'"precision": {precision}}}',
        encoding="utf-8",
    )
    (read,) = _read("mathvista", path)
    assert scored("mathvista", read, "1.2").score == right
    assert scored("mathvista", read, "1.2", "fixed").score == 1


def test_gqa(tmp_path: Path) -> None:
    row = {
        "question": "Is it?",
        "imageId": "n1",
        "answer": "yes",
        "types": {"structural": "verify"},
    }
    path = tmp_path / "testdev_balanced_questions.json"
    path.write_text(json.dumps({"201": row}), encoding="utf-8")
    assert _read("gqa", path) == [question(201, text="Is it?", image="n1", category="verify")]
    path.write_text(json.dumps({"201": {"question": "Is it?"}}), encoding="utf-8")
    form = "does not have the form of GQA's questions: question 1"
    with pytest.raises(DataError, match=f"{form} has no `imageId`; give the benchmark's own file"):
        _read("gqa", path)
    path.write_text(json.dumps({"201": {**row, "question": None}}), encoding="utf-8")
    with pytest.raises(DataError, match=f"{form}: text: Input should be a valid string;"):
        _read("gqa", path)
    path.write_text(json.dumps({"201": [row]}), encoding="utf-8")
    with pytest.raises(DataError, match=f"{form} is of another form;"):
        _read("gqa", path)


def test_seed(tmp_path: Path) -> None:
    row = {
        "question_id": "v1",
        "question": "Which?",
        "data_id": "a.jpg",
        "data_type": "video",
        "question_type_id": 12,
        "answer": "B",
        **{f"choice_{letter}": letter * 2 for letter in "abc"},
        "choice_d": 4,
    }
    path = tmp_path / "SEED-Bench.json"
    path.write_text(json.dumps({"questions": [row]}), encoding="utf-8")
    assert _read("seed", path) == [
        question(
            "v1",
            "B",
            text="Which?",
            image="a.jpg",
            category="video/12",
            options=("aa", "bb", "cc", "4"),
        )
    ]


def test_mmbench(tmp_path: Path) -> None:
    path = tmp_path / "mmbench_dev_20230712.tsv"
    header = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage"
    rows = ["7\tWhich?\tnan\tx\ty\t\t\tA\tc\taGk=", '1000007\t"Which\none?"\tL\ty\tx\tz\t\tB\tc\t7']
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    read = _read("mmb_cn", path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert (
        _read("mmb_cn", path)
        == read
        == [
            question(
                7, "A", text="Which?", image="7", category="c", options=("x", "y"), rotation_of="7"
            ),
            question(
                1_000_007,
                "B",
                text="Which\none?",
                image="7",
                category="c",
                options=("y", "x", "z"),
                hint="L",
                rotation_of="7",
            ),
        ]
    )


def test_mmbench_in_another_form(tmp_path: Path) -> None:
    path = tmp_path / "mmbench_dev_20230712.tsv"
    path.write_text("index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\n7\n", encoding="utf-8")
    with pytest.raises(DataError, match="question 1: text: Input should be a valid string"):
        _read("mmb", path)
    path.write_bytes("index\tquestion\n7\t\u54ea".encode("gbk"))
    with pytest.raises(DataError, match=r"is not UTF-8 \(byte 17\); give"):
        _read("mmb", path)


def test_textvqa_answers_are_ten_texts(tmp_path: Path) -> None:
    path = tmp_path / "TextVQA_0.5.1_val.json"
    row = {"question_id": 1, "image_id": "i1", "question": "Which?"}
    for answers, problem in (("abcdefghij", "gold: "), ([{"answer": "a"}], r"gold\.0: ")):
        path.write_text(json.dumps({"data": [{**row, "answers": answers}]}), encoding="utf-8")
        with pytest.raises(DataError, match=f"question 1: {problem}"):
            _read("textvqa", path)


def test_textvqa_answers_meet_questions_by_image_and_prompt(tmp_path: Path) -> None:
    path = tmp_path / "TextVQA_0.5.1_val.json"
    rows = [
        {"question_id": n, "image_id": "i1", "question": text, "answers": ["a"] * 10}
        for n, text in enumerate(["Which Brand?", "what time?"])
    ]
    path.write_text(json.dumps({"data": rows}), encoding="utf-8")
    protocol, questions = get_protocol("textvqa"), _read("textvqa", path)
    stored = [
        {"question_id": "i1", "prompt": "what time?" + S, "text": "two"},
        {"question_id": "i1", "prompt": "which brand?\nReference OCR token: X" + S, "text": "x"},
    ]
    answers = read_llava(_lines(tmp_path / "a.jsonl", *stored), protocol, questions)
    assert answers == [Answer(question_id="1", text="two"), Answer(question_id="0", text="x")]
    same = [question(id, text="What time?", image="i1") for id in ("5", "6")]
    answers = read_llava(_lines(tmp_path / "a.jsonl", stored[0], stored[0]), protocol, same)
    assert [answer.question_id for answer in answers] == ["5", "6"]
    for prompt, problem in ((None, " has no prompt"), ("who?", ": no question can be read out of")):
        row = {**stored[0], "prompt": prompt}
        with pytest.raises(DataError, match=f"line 1{problem}"):
            read_llava(_lines(tmp_path / "a.jsonl", row), protocol, questions)
    stored[0]["prompt"] = "who?" + S
    with pytest.raises(DataError, match='line 1: image i1 has no question "who\\?"'):
        read_llava(_lines(tmp_path / "a.jsonl", *stored), protocol, questions)


@pytest.mark.parametrize("precision", ["NaN", "Infinity", "true", '"1"'])
def test_a_precision_is_a_number_of_places(tmp_path: Path, precision: str) -> None:
    path = tmp_path / "mathvista.jsonl"
    path.write_text(f'{{"id": "1", "text": "?", "image": "i", "precision": {precision}}}')
    with pytest.raises(DataError, match="line 1: precision"):
        _read("mathvista", path)


def test_two_questions_of_one_id_are_told_apart_by_the_prompt(tmp_path: Path) -> None:
    protocol, name = get_protocol("mme"), "color/1.png"
    asked = [question(name, text="Is it red?"), question(f"{name}/2", text="Is it blue?")]
    rows = [
        {"question_id": name, "prompt": f"{text} Please answer yes or no.{S}", "text": said}
        for text, said in (("Is it blue?", "No"), ("Is it red?", "Yes"))
    ]
    found = read_llava(_lines(tmp_path / "a.jsonl", *rows), protocol, asked)
    assert {each.question_id: each.text for each in found} == {name: "Yes", f"{name}/2": "No"}
    for prompt, problem in (
        (None, " has no prompt"),
        ("Is it?", ': no question of the id col.* "Is'),
    ):
        path = _lines(tmp_path / "a.jsonl", {**rows[0], "prompt": prompt})
        with pytest.raises(DataError, match=f"line 1{problem}"):
            read_llava(path, protocol, asked)


@pytest.mark.parametrize("row", [{"text": "x"}, {"question_id": 1}, {"question_id": 1, "text": 2}])
def test_answers_without_id_or_text_are_refused(row: dict[str, object], tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", {"question_id": 0, "text": ""}, row)
    with pytest.raises(DataError, match="line 2 has no question_id or no text"):
        read_llava(path, get_protocol("gqa"), [])


def test_other_files_of_a_benchmark_ask_for_json_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="MME-P's own files are not read"):
        _read("mme", tmp_path / "MME.json")
