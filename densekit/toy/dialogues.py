"""What is said about the drawn shapes: captions, questions and answers in LLaVA's annotation
format.
"""

from typing import Any

import numpy as np

Entry = dict[str, Any]

CAPTION_PROMPTS = (
    "Describe the picture.",
    "Give a short description of the image.",
    "What is in the picture?",
    "Write a brief caption for the photo.",
)
CAPTIONS = (
    "a {colour} {shape} on a {background} grey background",
    "a picture of a {colour} {shape}",
    "one {colour} {shape}",
    "a {shape} that is {colour}, on {background} grey",
)
QUESTIONS = {"colour": "What colour is the shape?", "shape": "What shape is it?"}
TEXT_ONLY = (
    ("What colour is a lemon?", "Yellow"),
    ("What colour is grass?", "Green"),
    ("What colour is a ripe tomato?", "Red"),
    ("What colour is the clear sky?", "Blue"),
    ("Which shape has three sides?", "Triangle"),
    ("Which shape has four equal sides?", "Square"),
    ("Which shape is perfectly round?", "Circle"),
    ("Which shape has two bars?", "Cross"),
)
TAG_FIRST = "<image>\n{}"
TAG_LAST = "{}\n<image>"


def caption_entry(
    name: str, image: str, colour: str, shape: str, background: str, rng: np.random.Generator
) -> Entry:
    """Return a stage-1 entry: one prompt with the image tag before or behind it, one caption."""
    prompt = CAPTION_PROMPTS[rng.integers(len(CAPTION_PROMPTS))]
    caption = CAPTIONS[rng.integers(len(CAPTIONS))].format(
        colour=colour, shape=shape, background=background
    )
    tagged = (TAG_FIRST if rng.random() < 0.5 else TAG_LAST).format(prompt)
    return entry(name, [(tagged, caption)], image)


def question_entry(
    name: str,
    image: str,
    colour: str,
    shape: str,
    colours: tuple[str, ...],
    shapes: tuple[str, ...],
    rng: np.random.Generator,
) -> Entry:
    """Return a stage-2 entry: colour and shape asked in either order, often a yes/no question
    somewhere.
    """
    rounds = [(QUESTIONS["colour"], colour.capitalize()), (QUESTIONS["shape"], shape.capitalize())]
    if rng.random() < 0.5:
        rounds.reverse()
    if rng.random() < 0.6:
        truth = bool(rng.random() < 0.5)
        if rng.random() < 0.5:
            question = f"Is the shape {_pick(colours, colour, truth, rng)}?"
        else:
            question = f"Is it a {_pick(shapes, shape, truth, rng)}?"
        rounds.insert(int(rng.integers(3)), (question, "Yes" if truth else "No"))
    first_question, first_answer = rounds[0]
    return entry(name, [(TAG_FIRST.format(first_question), first_answer), *rounds[1:]], image)


def text_entry(name: str, rng: np.random.Generator) -> Entry:
    """Return a stage-2 entry without an image: general knowledge or a small sum."""
    if rng.random() < 0.3:
        first, second = (int(number) for number in rng.integers(1, 6, size=2))
        return entry(name, [(f"What is {first} plus {second}?", str(first + second))])
    return entry(name, [TEXT_ONLY[rng.integers(len(TEXT_ONLY))]])


def held_out_entry(name: str, image: str, kind: str, answer: str) -> Entry:
    """Return an evaluation entry: one question of `kind` ("colour" or "shape") with its gold
    answer.
    """
    asked = entry(name, [(TAG_FIRST.format(QUESTIONS[kind]), answer.capitalize())], image)
    return {**asked, "question_kind": kind}


def dialogue_line(entry: Entry) -> str:
    """Return the conversation as one line of plain text, without the image tag."""
    speakers = {"human": "USER:", "gpt": "ASSISTANT:"}
    parts = [f"{speakers[turn['from']]} {turn['value']}" for turn in entry["conversations"]]
    return " ".join(" ".join(parts).replace("<image>", " ").split())


def _pick(options: tuple[str, ...], actual: str, truth: bool, rng: np.random.Generator) -> str:
    if truth:
        return actual
    others = [option for option in options if option != actual]
    return others[rng.integers(len(others))]


def entry(name: str, rounds: list[tuple[str, str]], image: str | None = None) -> Entry:
    """Return an entry in LLaVA's form; `rounds`: questions with their answers."""
    turns = []
    for question, answer in rounds:
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, **({} if image is None else {"image": image}), "conversations": turns}
