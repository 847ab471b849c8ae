"""Tests of the rendered text and the labelled character spans of every template."""

import pytest

from densekit.errors import UsageError
from densekit.spec.templates import template_names
from densekit.text.templates import get_template

TURNS = [("human", "Q1?"), ("gpt", "A1."), ("human", "Q2?"), ("gpt", "")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v1", [" A1.</s>", " </s>"]),
        ("phi", [" A1.<|endoftext|>", " <|endoftext|>"]),
        ("llama_3", ["A1.<|eot_id|>", "<|eot_id|>"]),
        ("chatml_direct", ["A1.<|im_end|>", "<|im_end|>"]),
        ("plain", ["A1.\n", "\n"]),
    ],
)
def test_spans_hold_the_answers(name: str, expected: list[str]) -> None:
    rendered = get_template(name).render(TURNS, "fixed")
    assert [rendered.text[start:end] for start, end in rendered.labelled] == expected
    assert [rendered.text[start:end] for start, end in rendered.human] == ["Q1?", "Q2?"]


def test_v1_text() -> None:
    text = get_template("v1").render(TURNS[:2], "fixed").text
    assert text.endswith("the user's questions. USER: Q1? ASSISTANT: A1.</s>")


def test_chatml_text() -> None:
    assert get_template("chatml_direct").render(TURNS[:2], "fixed").text == (
        "<|im_start|>system\nAnswer the questions.<|im_end|>"
        "<|im_start|>user\nQ1?<|im_end|><|im_start|>assistant\nA1.<|im_end|>"
    )


def test_llama_3_headers() -> None:
    official = get_template("llama_3").render(TURNS[:2], "faithful").text
    fixed = get_template("llama_3").render(TURNS[:2], "fixed").text
    assert "assistant<|end_header_id|>" not in official
    assert official.count("system<|end_header_id|>") == 2
    assert fixed.endswith("<|start_header_id|>assistant<|end_header_id|>\n\nA1.<|eot_id|>")


def test_official_rendering_drops_empty_turns() -> None:
    v1, llama_3 = get_template("v1"), get_template("llama_3")
    turns = [("human", ""), ("gpt", "")]
    assert v1.render(turns, "faithful").text == v1.system + "USER:ASSISTANT:"
    assert v1.render(turns, "fixed").text == v1.system + "USER:  ASSISTANT: </s>"
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert llama_3.render(turns, "faithful").text == (
        llama_3.system + header.format("user") + header.format("system")
    )


def test_prompt_ends_with_an_open_header() -> None:
    endings = {
        "v1": "Q1? ASSISTANT:",
        "phi": "Q1? ASSISTANT:",
        "chatml_direct": "Q1?<|im_end|><|im_start|>assistant\n",
        "llama_3": "Q1?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    }
    for name, ending in endings.items():
        assert get_template(name).render(TURNS[:1], "fixed", answer=True).text.endswith(ending)


def test_unknown_template_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="chatml_direct, llama_3, phi, plain, v1"):
        get_template("v2")


def test_every_module_is_a_template() -> None:
    assert template_names() == ("chatml_direct", "llama_3", "phi", "plain", "v1")
    for name in template_names():
        assert get_template(name).render(TURNS, "fixed").labelled
