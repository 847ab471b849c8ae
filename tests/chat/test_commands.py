"""`densekit chat` in a pseudo-terminal and `densekit generate`, on runs that were trained here."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from densekit.data.pixels import open_image
from densekit.data.video import read_frames
from densekit.exchange.pipeline import load_pipeline
from densekit.spec.video import VideoSettings
from tests.support.videos import make_video
from tests.support.workplace import Workplace

pytestmark = pytest.mark.ranks

START_S = 240
"""Importing torch and loading a tiny model, on a busy machine."""


class Session:
    """A command in a pseudo-terminal of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._master, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "densekit", *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=folder,
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(terminal)
        self.text = ""

    def interrupt(self, word: str) -> str:
        """Press Ctrl-C until something new is shown; returns it up to a word. Python misses a
        signal that comes after the prompt and before it waits for a line.
        """
        while not self.text:
            self.type("\x03")
            self._read(5)
        return self.until(word)

    def until(self, word: str) -> str:
        """What is shown up to a word, from the last time on."""
        end = time.monotonic() + START_S
        while word not in self.text:
            assert time.monotonic() < end, f"waited for {word!r}, saw {self.text!r}"
            assert self._read(1), f"it ended before {word!r}: {self.text!r}"
        shown, _, self.text = self.text.partition(word)
        return shown.replace("\r\n", "\n")

    def _read(self, seconds: float) -> bool:
        """Take what is shown within some seconds; False where the terminal is closed."""
        if select.select([self._master], [], [], seconds)[0]:
            try:
                self.text += os.read(self._master, 4096).decode()
            except OSError:
                return False
        return True

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self._master, text.encode())

    def ask(self, question: str) -> str:
        """Type a line; returns what is shown up to the next prompt, without the echo."""
        self.type(f"{question}\n")
        self.until("\n")
        return self.until(">>> ").strip()

    def end(self) -> int:
        """Ctrl-D; returns the exit code."""
        self.type("\x04")
        return self.process.wait(START_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


def _own_terminal() -> None:
    """Ctrl-C reaches who reads this terminal, as in a shell."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def session(request: pytest.FixtureRequest) -> Iterator[list[Session]]:
    sessions: list[Session] = []
    yield sessions
    for each in sessions:
        each.close()


def pictures(workplace: Workplace) -> list[Path]:
    return sorted((workplace.root / ".cache" / "densekit").rglob("*.png"))


def test_a_conversation_says_what_generate_says(
    workplace: Workplace, session: list[Session], tmp_path: Path
) -> None:
    first, second = pictures(workplace)[:2]
    shape = "What shape is in the picture?"
    lines = [
        {"prompt": shape, "image": str(first), "id": 7},
        {"prompt": "Name a colour.", "image": None},
        {"prompt": shape, "image": str(second)},
    ]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    place = ("--launcher", "local", "--device", "cpu", "--max-new-tokens", "9")
    done = workplace.densekit("generate", "tiny_stage2", "--file", str(file), "--json", *place)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    answers = said.pop("answers")
    assert said == {
        "model": str(workplace.run_dir("tiny_stage2")),
        "template": "v1",
        "device": "cpu",
        "dtype": "fp32",
        "max_new_tokens": 9,
        "temperature": 0.0,
        "seed": 0,
    }
    for line, answer in zip(lines, answers, strict=True):
        assert [*answer] == [
            *("id", "prompt", "image", "answer", "finish", "prompt_tokens", "new_ids")
        ]
        assert answer["prompt"] == line["prompt"] and answer["image"] == line["image"]
        assert (answer["finish"] == "end") == (answer["new_ids"][-1] == 2)
        assert 1 <= len(answer["new_ids"]) <= 9 and answer["prompt_tokens"] > 20
    assert [answer["id"] for answer in answers] == [7, None, None]

    talk = Session(workplace.root, "chat", "tiny_stage2", "--image", str(first), *place)
    session.append(talk)
    assert f"connector dci, template v1; about {first}" in talk.until(">>> ")
    shown = [talk.ask(shape)]
    assert "new conversation about" in talk.ask(f"/image {second}")
    shown.append(talk.ask(shape))
    for text, answer in zip(shown, (answers[0], answers[2]), strict=True):
        assert text.partition("\n(cut off")[0].strip() == answer["answer"]
        assert ("(cut off after 9 tokens" in text) == (answer["finish"] == "length")
    assert talk.ask("And its colour?") is not None, "a second turn"
    assert "nothing.png is not a file: name a picture" in talk.ask("/image nothing.png")
    assert "Ctrl-D or /quit ends" in talk.interrupt(">>> ")
    assert talk.end() == 0


@pytest.mark.parametrize("recipe", ["tiny_stage1", "tiny_stage2_lora"])
def test_other_kinds_of_runs_answer(workplace: Workplace, recipe: str) -> None:
    loaded = load_pipeline(workplace.run_dir(recipe))
    assert loaded.conversation.template == "v1", "a stage-1 run has the one of its tokenizer"
    image = open_image(pictures(workplace)[0])
    prompts = [loaded.question("What shape is it?", shown) for shown in (image, None)]
    assert all(answer.ids for answer in loaded.answers(prompts, max_new_tokens=4))


def test_a_video_is_asked_about(workplace: Workplace, tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mkv", 20)
    place = ("--launcher", "local", "--device", "cpu", "--max-new-tokens", "5", "--json")
    asked = ("--prompt", "What shape is it?", "--video", str(path), "--frames", "4")
    done = workplace.densekit("generate", "tiny_stage2", *asked, *place)
    assert done.returncode == 0, done.stderr
    (said,) = json.loads(done.stdout)["answers"]
    assert (said["video"], said["frames"], said["image"]) == (str(path), 4, None)
    loaded = load_pipeline(workplace.run_dir("tiny_stage2"))
    settings = VideoSettings(frames=4)
    prompt = loaded.video_question("What shape is it?", read_frames(path, settings), settings)
    (answer,) = loaded.answers([prompt], max_new_tokens=5)
    assert (said["prompt_tokens"], said["new_ids"]) == (prompt.tokens, [*answer.ids])


def test_what_cannot_be_talked_to_is_said_in_one_line(workplace: Workplace, tmp_path: Path) -> None:
    place = ("--launcher", "local", "--device", "cpu")
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures(workplace)[0].read_bytes()[:20])
    for words, code, expected in [
        (("chat", "tiny_none"), 3, "no run tiny_none"),
        (("generate", "tiny_stage2"), 2, "no question: give --prompt, or --file"),
        (("generate", "tiny_stage2", "--prompt", "<image>a"), 3, "no image: give an image"),
        (
            ("generate", "tiny_stage2", "--prompt", "a", "--image", str(broken)),
            3,
            "broken.png cannot be read (",
        ),
        (
            ("generate", "tiny_stage2", "--prompt", "a", "--video", str(tmp_path / "no.mp4")),
            3,
            "no.mp4 is not a file: give a video",
        ),
        (
            ("generate", "tiny_stage2", "--prompt", "a", "--video", str(broken), "--image", "x"),
            2,
            "--image and --video: a question is about one of them",
        ),
    ]:
        done = workplace.densekit(*words, *place)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        assert expected in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["tiny_stage2", "tiny_stage2_lora"])
def test_a_trained_run_sees_the_picture(
    recipe: str, session: list[Session], tmp_path: Path
) -> None:
    place = Workplace(tmp_path)
    done = place.densekit("run", recipe, "--launcher", "local", timeout=3000)
    assert done.returncode == 0, done.stderr
    (questions,) = (tmp_path / ".cache").rglob("held_out.json")
    wanted = json.loads(questions.read_text(encoding="utf-8"))[:64]
    assert {question_of(entry) for entry in wanted[:4]} >= {"What shape is it?"}
    (run,) = (tmp_path / "runs").glob(f"{recipe}-*")
    loaded = load_pipeline(run)
    prompts = [
        loaded.question(question_of(entry), open_image(image_of(tmp_path, entry)))
        for entry in wanted
    ]
    given = [answer.text for answer in loaded.answers(prompts, max_new_tokens=12)]
    gold = [entry["conversations"][1]["value"] for entry in wanted]
    right = sum(a == b for a, b in zip(given, gold, strict=True))
    assert right >= 32, f"{right} of {len(gold)} shapes and colours; 16 by guessing one of four"

    talk = Session(tmp_path, "chat", recipe, "--launcher", "local", "--device", "cpu")
    session.append(talk)
    talk.until(">>> ")
    for entry, answer in zip(wanted[:4], given[:4], strict=True):
        talk.ask(f"/image {image_of(tmp_path, entry)}")
        assert talk.ask(question_of(entry)) == answer in {*gold}
    assert talk.end() == 0

    image = image_of(tmp_path, wanted[0])
    asked = ("--prompt", question_of(wanted[0]), "--image", str(image), "--json")
    on_cpu = ("--launcher", "local", "--device", "cpu")
    said = json.loads(place.densekit("generate", recipe, *asked, *on_cpu).stdout)
    merge = ["--merge-lora"] * recipe.endswith("lora")
    stock = ("export", recipe, "--format", "llava-hf", "--to", str(tmp_path / "hf"), *merge)
    assert place.densekit(*stock, "--launcher", "local").returncode == 0
    asked_as = {"ids": prompts[0].ids, "pixels": prompts[0].pixels}
    save_file(asked_as, tmp_path / "prompt.safetensors")
    alone = subprocess.run(
        [sys.executable, "-c", STOCK, str(tmp_path / "hf"), str(tmp_path / "prompt.safetensors")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert json.loads(alone.stdout) == said["answers"][0]["new_ids"]


STOCK = """
import json, sys, torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration
model = LlavaForConditionalGeneration.from_pretrained(sys.argv[1]).eval()
prompt, image = load_file(sys.argv[2]), model.config.image_token_id
slots = [image] * model.config.image_seq_length
ids = [each for id in prompt["ids"].tolist() for each in (slots if id == -200 else [id])]
inputs = {"input_ids": torch.tensor([ids]), "pixel_values": prompt["pixels"]}
said = model.generate(**inputs, max_new_tokens=512)[0, len(ids):]
assert not any(name.startswith("densekit") for name in sys.modules)
print(json.dumps(said.tolist()))
"""
"""Stock transformers alone, for the ids and pixels in a file."""


def image_of(folder: Path, entry: dict[str, Any]) -> Path:
    (found,) = (folder / ".cache").rglob(Path(entry["image"]).name)
    return found


def question_of(entry: dict[str, Any]) -> str:
    return str(entry["conversations"][0]["value"]).replace("<image>", "").strip()
