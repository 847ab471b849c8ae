"""A conversation: where the picture stands, what is remembered, what is refused, and commands of
the terminal.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from densekit.chat.conversation import Conversation
from densekit.chat.terminal import HELP, Terminal
from densekit.errors import DataError
from densekit.exchange.pipeline import Pipeline
from tests.support.pipelines import MAX_LENGTH, made_pipeline


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return made_pipeline()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a picture.png"
    Image.linear_gradient("L").save(path)
    return path


def conversation(pipeline: Pipeline) -> Conversation:
    return Conversation(pipeline, max_new_tokens=6, temperature=0.0)


def unheard(piece: str) -> None:
    """Nobody listens to the answer."""


def test_the_picture_stands_in_front_of_the_first_question(
    pipeline: Pipeline, picture: Path
) -> None:
    talk = conversation(pipeline)
    talk.look_at(picture)
    for question in ("What is it?", "Which colour?"):
        pieces: list[str] = []
        answer = talk.ask(question, pieces.append)
        assert answer is not None and "".join(pieces) == answer.text == talk.turns[-1][1]
    asked = [text for role, text in talk.turns if role == "human"]
    assert asked == ["<image>\nWhat is it?", "Which colour?"]
    with Image.open(picture) as image:
        again = pipeline.prompt(talk.turns[:3], image)
    (alone,) = pipeline.answers([again], max_new_tokens=6)
    assert alone == answer
    talk.reset()
    assert talk.turns == []
    talk.ask("Again?", unheard)
    assert talk.turns[0][1] == "<image>\nAgain?"


def test_an_answer_equals_that_of_a_batch(pipeline: Pipeline, picture: Path) -> None:
    talk = conversation(pipeline)
    without = talk.ask("What is a duck, in a few words?", unheard)
    talk.look_at(picture)
    about = talk.ask("What is it?", unheard)
    with Image.open(picture) as image:
        prompts = [
            pipeline.question("What is a duck, in a few words?", None),
            pipeline.question("What is it?", image),
        ]
    assert pipeline.answers(prompts, max_new_tokens=6) == [without, about]


def test_questions_that_cannot_be_asked_are_forgotten(pipeline: Pipeline, picture: Path) -> None:
    talk = conversation(pipeline)
    with pytest.raises(DataError, match="/image FILE"):
        talk.ask("<image> What is it?", unheard)
    with pytest.raises(DataError, match=rf"the prompt has 1,\d+ tokens, .* {MAX_LENGTH:,} at most"):
        talk.ask("long " * (MAX_LENGTH // 5), unheard)
    assert talk.turns == []
    talk.look_at(picture)
    talk.ask("What?", unheard)
    with pytest.raises(DataError, match=r"4 of them the image's.* or begin anew with /reset"):
        talk.ask("long " * (MAX_LENGTH // 5), unheard)
    with pytest.raises(DataError, match=r"nowhere.png"):
        talk.look_at(picture.with_name("nowhere.png"))
    broken = picture.with_name("broken.png")
    broken.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(DataError, match=r"broken.png"):
        talk.look_at(broken)
    assert len(talk.turns) == 2, "what cannot be read changes nothing"


def test_tags_and_images_have_to_agree(pipeline: Pipeline, picture: Path) -> None:
    with pytest.raises(DataError, match=r"1 image tag .* no image: give an image, or remove"):
        pipeline.question("<image>\nWhat is it?", None)
    with Image.open(picture) as image:
        with pytest.raises(DataError, match=r"2 image tags .* one image"):
            pipeline.question("<image> and <image>", image)
        behind = pipeline.question("What is it? <image>", image)
        before = pipeline.question("What is it? ", image)
    assert behind.tokens == before.tokens - 1 and not behind.ids.equal(before.ids)


def test_positions_of_the_language_model_end_an_answer(pipeline: Pipeline) -> None:
    prompt = pipeline.question("x", None)
    positions = pipeline.model.config.text_config.max_position_embeddings
    pipeline.model.config.text_config.max_position_embeddings = prompt.tokens + 3
    try:
        (answer,) = pipeline.answers([prompt], max_new_tokens=50)
        assert len(answer.ids) <= 3
        pipeline.model.config.text_config.max_position_embeddings = prompt.tokens
        with pytest.raises(DataError, match="positions: shorten it"):
            pipeline.answers([prompt], max_new_tokens=50)
    finally:
        pipeline.model.config.text_config.max_position_embeddings = positions


class Typed:
    """A terminal whose lines are given; an exception among them is raised."""

    def __init__(self, *lines: str | BaseException) -> None:
        self._lines = iter(lines)

    def __call__(self) -> str:
        line = next(self._lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    yield


@pytest.mark.usefixtures("at_a_terminal")
def test_commands(pipeline: Pipeline, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = conversation(pipeline)
    read = Typed(
        *("/help", "", "/nothing", "/image", "/image missing.png", "/image 'a picture.png'"),
        *("What is it?", "/reset", f"/image {picture}", KeyboardInterrupt(), "/quit", "unread"),
    )
    Terminal(talk, folder=picture.parent, read=read).run()
    out = capsys.readouterr().out
    assert HELP in out and "no command /nothing" in out and "name a picture" in out
    assert "missing.png" in out and out.count(f"new conversation about {picture}") == 2
    assert "cut off after 6 tokens" in out and "Ctrl-D or /quit ends" in out
    assert talk.turns == []


@pytest.mark.usefixtures("at_a_terminal")
def test_ctrl_c_stops_an_answer_and_keeps_what_was_said(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = Conversation(pipeline, max_new_tokens=50, temperature=0.0)
    heard: list[str] = []

    def interrupted(self: Terminal, piece: str) -> None:
        heard.append(piece)
        if len(heard) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Terminal, "_write", interrupted)
    Terminal(talk, folder=Path(), read=Typed("Go on.", "/quit")).run()
    assert "(stopped)" in capsys.readouterr().out
    assert talk.turns == [("human", "Go on."), ("gpt", "".join(heard).strip())]
    monkeypatch.undo()
    assert talk.ask("And now?", unheard) is not None


def test_a_line_of_a_pipe_that_cannot_be_asked_ends_it(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(DataError, match="no command"):
        Terminal(conversation(pipeline), folder=Path(), read=Typed("/nothing")).run()


def test_a_container_says_which_folders_it_sees(pipeline: Pipeline, picture: Path) -> None:
    seen = (picture.parent,)
    terminal = Terminal(conversation(pipeline), folder=picture.parent, seen=seen)
    assert terminal.picture(str(picture)) == picture
    with pytest.raises(DataError, match=f"below {picture.parent} alone"):
        terminal.picture("../elsewhere.png")
