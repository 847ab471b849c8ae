"""Recorded prompts of the official runners: texts, settings, number of end tokens, ids."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from densekit.errors import DataError
from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.protocols.cells import read_cell, shown_hint, shown_options
from densekit.evaluate.protocols.prompts import OCR, human_turn, text_asked
from densekit.evaluate.protocols.stops import stop_texts
from densekit.evaluate.questions import Question
from densekit.parity.compare import Quantities
from densekit.runs.benchmarks import Protocol
from densekit.spec.types import IMAGE_TOKEN
from densekit.text.encode import SampleEncoder
from densekit.text.templates import get_template
from densekit.text.tokenizers.base import load_tokenizer

TEMPLATES = {"vicuna_v1": "v1", "llama_3": "llama_3"}
TOKENIZER = "golden_exchange/base/models/llm_v1"
"""Of the recorded ids, below the folder that holds the set."""
MARKED = f"<im_start>{IMAGE_TOKEN}<im_end>"
"""The tag between marks, an option of the official code that the paper's models do not use."""


def check_of(path: Path) -> Callable[[Quantities, Any, Any], None]:
    """The comparison of a prompt of this file; ids too where the set of exchanged models, whose
    tokenizer it names, lies beside its folder.
    """
    folder = path.parent.parent / TOKENIZER
    tokenizer = load_tokenizer(folder) if folder.is_dir() else None
    encoders = {
        name: SampleEncoder(
            tokenizer=tokenizer, template=template, semantics="faithful", max_length=2048
        )
        for name, template in TEMPLATES.items()
        if tokenizer is not None
    }

    def check(quantities: Quantities, given: Any, recorded: Any) -> None:
        protocol, question = _ASKED[given["kind"]](given)
        text = text_asked(protocol, question)
        tag = MARKED if given["im_start_end"] else IMAGE_TOKEN
        turn = {
            "from": "human",
            "value": human_turn(text, has_image=question.image is not None, tag=tag),
        }
        template = get_template(TEMPLATES[given["conv_mode"]])
        turns = template.prompt_turns([turn], has_image=True)
        prompt = template.render(turns, "faithful", answer=True).text
        quantities.exact("prompt", prompt, recorded["prompt"])
        quantities.exact("image", str(question.image is not None), str(recorded["image"]))
        _settings(quantities, protocol, given["conv_mode"], recorded["settings"])
        stored = text.removesuffix(protocol.suffix) if given["kind"] == "mmbench" else text
        if given["kind"] == "science" and question.image is not None:
            stored = human_turn(text, has_image=True)
        quantities.exact("stored_prompt", stored, recorded["stored_prompt"])
        if "options" in recorded:
            quantities.exact("options", list(question.options), recorded["options"])
        encoder = encoders.get(given["conv_mode"])
        if encoder is not None and "input_ids" in recorded:
            ids = encoder.encode_prompt([turn], has_image=IMAGE_TOKEN in prompt)
            quantities.close("input_ids", ids, recorded["input_ids"], 0.0)

    return check


def _settings(quantities: Quantities, protocol: Protocol, mode: str, recorded: Any) -> None:
    ours = protocol.decoding.model_dump()
    for key in ("do_sample", "temperature", "num_beams", "max_new_tokens"):
        if key in recorded:
            quantities.exact(key, [ours[key]], [recorded[key]])
    stops = 1 + len(stop_texts(TEMPLATES[mode], "faithful"))  # the model's own end token
    quantities.exact("end_tokens", str(stops), str(len(recorded["eos_token_id"])))


def _plain(given: Any) -> tuple[Protocol, Question]:
    return get_protocol("mmvet"), Question(id="", text=given["text"], image="1")


def _loader(given: Any) -> tuple[Protocol, Question]:
    """The file of this runner holds the whole text; its protocol is found by the lines."""
    lines, suffix = given["text"].split("\n"), get_protocol("gqa").suffix.strip()
    if len(lines) < 2 or lines[-1] != suffix:
        raise DataError(f"a prompt of the loader runner does not end in the line `{suffix}`")
    if len(lines) > 2 and lines[-2].startswith(OCR.strip()):
        tokens = tuple(lines[-2].removeprefix(OCR.lstrip()).split(", "))
        question = Question(id="", text="\n".join(lines[:-2]), image="1", ocr_tokens=tokens)
        return get_protocol("textvqa"), question
    return get_protocol("gqa"), Question(id="", text="\n".join(lines[:-1]), image="1")


def _science(given: Any) -> tuple[Protocol, Question]:
    image = "1" if given["picture"] else None
    return get_protocol("sqa"), Question(id="", text=given["value"], image=image)


def _mmbench(given: Any) -> tuple[Protocol, Question]:
    row = given["row"]
    options = shown_options([read_cell(row[letter]) for letter in "ABCD"])
    turn = given.get("round", 0) % max(len(options), 1)
    question = Question(
        id=str(row["index"]),
        text=row["question"],
        image="1",
        options=(*options[turn:], *options[:turn]),
        hint=shown_hint(read_cell(row["hint"])),
    )
    return get_protocol("mmb_cn" if given["lang"] == "cn" else "mmb"), question


def _mathvista(given: Any) -> tuple[Protocol, Question]:
    problem = given["problem"]
    question = Question(
        id="",
        text=problem["question"],
        image="1",
        options=tuple(problem["choices"] or ()),
        answer_type=problem["answer_type"],
        precision=problem["precision"],
        unit=problem["unit"],
    )
    return get_protocol("mathvista"), question


def _mmmu(given: Any) -> tuple[Protocol, Question]:
    question = Question(id="", text=given["question"], image="1", options=tuple(given["options"]))
    return get_protocol("mmmu"), question


_ASKED: dict[str, Callable[[Any], tuple[Protocol, Question]]] = {
    "plain": _plain,
    "loader": _loader,
    "science": _science,
    "mmbench": _mmbench,
    "mathvista": _mathvista,
    "mmmu": _mmmu,
}
