"""Protocols: what is asked to the last sign, and that every one is whole."""

import json
from hashlib import sha256

import pytest
import yaml

from densekit.errors import DataError, UsageError
from densekit.evaluate.protocols import benchmark_names, get_protocol, prompts
from densekit.evaluate.protocols.cells import read_cell, shown_hint, shown_options
from densekit.evaluate.protocols.prompts import human_turn, prompt_sha256, text_asked
from densekit.evaluate.protocols.stops import stop_texts
from densekit.evaluate.scorers import get_scorer, scorer_names
from densekit.runs.benchmarks import Protocol
from tests.evaluate.made import question
from tests.support.paths import ROOT

S = "\nAnswer the question using a single word or phrase."
L = "\nAnswer with the option's letter from the given choices directly."
ABC = ("red", "green", "blue")
HINT = "Hint: Please answer the question"
ASKED = {
    "gqa": "What is it?" + S,
    "vqav2": "What is it?" + S,
    "vizwiz": "What is it?\nWhen the provided information is insufficient, respond with "
    "'Unanswerable'." + S,
    "textvqa": "What is it?\nReference OCR token: a, b" + S,
    "pope": "What is it?" + S,
    "mme": "What is it?" + S,
    "mmvet": "What is it?",
    "llava_w": "What is it?",
    "sqa": "What is it?" + L,
    "mmb": "What is it?\nA. red\nB. green\nC. blue" + L,
    "mmb_cn": "What is it?\nA. red\nB. green\nC. blue\n请直接回答选项字母。",
    "seed": "What is it?\nA. red\nB. green\nC. blue" + L,
    "mmmu": "What is it?\n(A) red\n(B) green\n(C) blue\n" + L,
    "mathvista": f"{HINT} and provide the correct option letter, e.g., A, B, C, D, at the end.\n"
    "Question: What is it? (Unit: m)\nChoices:\n(A) red\n(B) green\n(C) blue",
}
VIDEOS = (
    "msvd",
    "msrvtt",
    "activitynet",
    *(f"video_{part}" for part in ["ci", "do", "cu", "tu", "co"]),
)
ASKED |= dict.fromkeys(VIDEOS, "What is it?")
JUDGED = ("mmvet", "llava_w", *VIDEOS)
NOT_OF_THE_PAPER = {"easy_vqa", "easy_vqa_yes_no", "held_out", "held_out_shuffled"}
NAMES = [name for name in benchmark_names() if name not in NOT_OF_THE_PAPER]
TOKENS = (
    {"mmmu": 128}
    | dict.fromkeys(VIDEOS, 512)
    | dict.fromkeys(("gqa", "vqav2", "vizwiz", "textvqa", "pope", "mme", "seed"), 128)
)


@pytest.mark.parametrize("name", NAMES)
def test_text_asked(name: str) -> None:
    asked = question(options=ABC, ocr_tokens=("a", "b"), unit="m")
    assert text_asked(get_protocol(name), asked) == ASKED[name]


def test_every_benchmark_of_the_paper_has_a_protocol() -> None:
    paper = yaml.safe_load((ROOT / "recipes" / "paper.yaml").read_text(encoding="utf-8"))
    titles = {
        name: entry["title"]
        for name, entry in paper["benchmarks"].items()
        if not name.endswith("_score")  # the same answers, from 0 to 5
    }
    assert set(ASKED) == set(NAMES) == {*titles, "seed"}
    assert {name: get_protocol(name).title for name in titles} == titles
    assert {name for name in NAMES if get_protocol(name).video} == {*VIDEOS}


@pytest.mark.parametrize("name", NAMES)
def test_protocol_is_whole(name: str) -> None:
    protocol = get_protocol(name)
    assert protocol.name == name and protocol.image_aspect_ratio == "pad"
    decoding = protocol.decoding
    assert decoding.max_new_tokens == TOKENS.get(name, 1024)
    assert (decoding.batch_size, decoding.dtype) == (1, "fp16")
    sampled = (True, 1, 5) if name == "mmmu" else (False, 0, 1)
    assert (decoding.do_sample, decoding.temperature, decoding.num_beams) == sampled
    assert (protocol.scorer is None) == (name in JUDGED)
    if protocol.scorer is not None:
        get_scorer(protocol.scorer)
    others = {"vqav2", "vizwiz", "mathvista", *JUDGED}
    assert (protocol.other_protocol is not None) == (name in others)
    padded = any(quirk.key == "padded_as_stored" for quirk in protocol.quirks)
    assert padded == (name in ("sqa", "mmb", "mmb_cn", "mmmu", "mathvista"))
    expected = protocol.expected
    if expected is not None and expected.categories:
        assert sum(expected.categories.values()) == expected.questions
    assert Protocol.model_validate_json(protocol.model_dump_json()) == protocol


def test_prompts_are_identified_by_their_hash() -> None:
    hashes = {name: prompt_sha256(get_protocol(name)) for name in NAMES}
    same = {frozenset(n for n in hashes if hashes[n] == value) for value in hashes.values()}
    assert same == {
        frozenset(group.split())
        for group in (
            "gqa vqav2 pope mme",
            " ".join(JUDGED),
            "mmb seed",
            *("vizwiz", "textvqa", "sqa", "mmb_cn", "mmmu", "mathvista"),
        )
    }
    texts = ["Which?", "Which?", "How many?", "How long?", "How long?", "<image>\nWhich ones?"]
    canonical = json.dumps([text + S for text in texts], separators=(",", ":")).encode()
    assert hashes["gqa"] == sha256(canonical).hexdigest()


@pytest.mark.parametrize("kind", ["letter", "integer", "float 1", "float 2", "list"])
def test_hash_covers_every_hint(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prompt_sha256(get_protocol("mathvista"))
    monkeypatch.setitem(prompts._HINTS, kind, "another hint")
    assert prompt_sha256(get_protocol("mathvista")) != before


def test_hints_follow_the_kind_of_answer() -> None:
    protocol = get_protocol("mathvista")

    def first_line(**fields: object) -> str:
        return text_asked(protocol, question(**fields)).split("\n")[0]

    assert "an integer answer" in first_line(answer_type="integer")
    for precision, words in ((1, "one decimal place"), (1.0, "one decimal place"), (2, "two")):
        assert words in first_line(answer_type="float", precision=precision)
    assert "a Python list" in first_line(answer_type="list")
    for fields in (
        {"answer_type": "float", "precision": 3},
        {"answer_type": "float"},
        {"answer_type": "text"},
    ):
        with pytest.raises(DataError, match=r"question 1: no hint is defined"):
            first_line(**fields)
    assert "(Unit" not in text_asked(protocol, question(answer_type="list", unit=""))


def test_more_options_than_letters_are_refused() -> None:
    protocol = get_protocol("mmb")
    assert text_asked(protocol, question(options=("x",) * 26)).count("\nZ. x\n") == 1
    with pytest.raises(DataError, match="27 options"):
        text_asked(protocol, question(options=("x",) * 27))


def test_tag_stands_above_the_text_of_a_question_with_an_image() -> None:
    assert human_turn("Which?", has_image=True) == "<image>\nWhich?"
    assert human_turn("Which?", has_image=False) == "Which?"


def test_cells_fixed_take_every_text_for_a_text() -> None:
    assert [read_cell(text) for text in ("NA", "none", "")] == [None, "none", None]
    assert [read_cell(text, "fixed") for text in ("NA", "none", "")] == ["NA", "none", None]
    cells = ["red", "None", "NaN", None, "blue"]
    assert shown_options(cells) == ("red",)
    assert shown_options(cells, "fixed") == ("red", "None", "NaN")
    assert shown_hint("nan") is None and shown_hint("nan", "fixed") == "nan"


def test_stop_texts_by_template() -> None:
    found = {name: stop_texts(name, "faithful") for name in ("v1", "llama_3", "chatml_direct")}
    assert found == {"v1": (), "llama_3": ("<|eot_id|>",), "chatml_direct": ()}
    assert stop_texts("chatml_direct", "fixed") == ("<|im_end|>",)
    assert stop_texts("plain", "fixed") == ()


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown benchmark 'GQA'; known: activitynet, "):
        get_protocol("GQA")
    with pytest.raises(UsageError, match=r"unknown scorer '\.'; known: closed, exact, gqa,"):
        get_scorer(".")
    assert {"yes_no", "ten_answers", "mmbench"} <= set(scorer_names())
