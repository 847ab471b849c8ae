"""Who starts the process that talks: this Python or a container, with which device, dtype, folders
and terminal; and what is refused before.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from densekit.errors import DataError, UsageError
from densekit.launch.launchers import talk as launchers_talk
from densekit.launch.launchers.docker.container import talk_container
from densekit.launch.launchers.local import Local
from densekit.launch.launchers.talk import become, in_sight
from densekit.launch.talk import read_request, resolved_image, talk, where_to_talk
from densekit.spec.execution import Execution
from densekit.spec.talk import ChatRequest, GenerateRequest, PromptLine, TalkRequest
from tests.support.launching import A100, V100, cards, put_gpus_on_path, stub_run


def chat_request(model: Path, **changes: Any) -> TalkRequest:
    values: dict[str, Any] = {
        "model": model,
        "device": "cpu",
        "dtype": "fp32",
        "max_new_tokens": 8,
        "folder": model.parent,
    }
    return TalkRequest(chat=ChatRequest(**{**values, **changes}))


def generate_request(model: Path, **changes: Any) -> TalkRequest:
    values: dict[str, Any] = {
        "model": model,
        "device": "cpu",
        "dtype": "fp32",
        "max_new_tokens": 8,
        "batch_size": 2,
        "as_json": True,
    }
    return TalkRequest(generate=GenerateRequest(**{**values, **changes}))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A run, as far as mounts are concerned."""
    run, _ = stub_run(tmp_path, "")
    return run.path


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """Commands and variables of the processes that would have taken this one's place."""
    calls: list[tuple[list[str], dict[str, str]]] = []

    def execve(program: str, command: list[str], environment: dict[str, str]) -> None:
        calls.append((command, environment))

    monkeypatch.setattr(os, "execve", execve)
    return calls


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("card", "device", "dtype", "expected"),
    [
        (A100, None, None, ("cuda", "bf16")),
        (V100, None, None, ("cuda", "fp16")),
        (A100, "cuda", "fp16", ("cuda", "fp16")),
        (A100, "cpu", None, ("cpu", "fp32")),
        (None, None, None, ("cpu", "fp32")),
        (None, None, "bf16", ("cpu", "bf16")),
    ],
)
def test_device_and_dtype_follow_the_gpu(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    card: str | None,
    device: Any,
    dtype: Any,
    expected: tuple[str, str],
) -> None:
    put_gpus_on_path(monkeypatch, tmp_path, *(cards(card, 2) if card else []))
    execution, notes = where_to_talk(device, dtype)
    assert (execution.device, execution.dtype) == expected
    assert len(notes) == (dtype is None)


@pytest.mark.ranks
def test_a_dtype_that_the_gpu_lacks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_gpus_on_path(monkeypatch, tmp_path, *cards(V100, 1))
    with pytest.raises(UsageError, match="--dtype bf16"):
        where_to_talk("cuda", "bf16")
    put_gpus_on_path(monkeypatch, tmp_path)
    with pytest.raises(UsageError, match="no GPU on this host"):
        where_to_talk("cuda", None)


@pytest.mark.ranks
def test_this_python_takes_the_idle_gpu(
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    became: list[tuple[list[str], dict[str, str]]],
) -> None:
    put_gpus_on_path(monkeypatch, tmp_path, *cards(A100, 3, used={0: 900, 2: 100}))
    request = chat_request(model, device="cuda", dtype="bf16")
    Local().talk(request, Execution(device="cuda", dtype="bf16"))
    Local().talk(chat_request(model), Execution())
    (command, environment), (_, on_cpu) = became
    assert command[:4] == [sys.executable, "-m", "densekit", "talk"]
    assert read_request(command[4]) == request
    assert environment["CUDA_VISIBLE_DEVICES"] == "1" and on_cpu["CUDA_VISIBLE_DEVICES"] == ""


def test_what_is_wrong_is_said_before_anything_starts(
    tmp_path: Path, model: Path, became: list[tuple[list[str], dict[str, str]]]
) -> None:
    refused: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (UsageError, "not a folder", lambda: start(chat_request(tmp_path / "nothing"))),
        (
            UsageError,
            "--template v2 is not one of",
            lambda: start(chat_request(model, template="v2")),
        ),
        (
            DataError,
            "--image .*nothing.png is not a file",
            lambda: resolved_image(tmp_path / "nothing.png"),
        ),
        (UsageError, "takes a request as JSON", lambda: read_request("{}x")),
        (UsageError, "is not on PATH", lambda: become(["densekit-no-such-program"], {})),
    ]
    for kind, match, call in refused:
        with pytest.raises(kind, match=match):
            call()
    assert became == []


def start(request: TalkRequest) -> None:
    talk(request, Local(), Execution())


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ("", "holds no prompts"),
        ('{"prompt": "a"}\nnonsense', "line 2: "),
        ('\n\n{"question": "a"}', "line 3: prompt: Field required"),
        ('{"prompt": "a", "image": 3}', "line 1: image: "),
        ('{"prompt": ""}', "line 1: prompt: "),
        ('{"prompt": "<image> a"}', "line 1: 1 image tag .* no image: give an image"),
        ('{"prompt": "a", "image": "none.png"}', "line 1: image .*none.png does not exist"),
    ],
)
def test_a_bad_file_of_prompts_is_named_by_line(
    tmp_path: Path, model: Path, lines: str, match: str
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(lines, encoding="utf-8")
    with pytest.raises(DataError, match=match):
        start(generate_request(model, file=file))
    with pytest.raises(DataError, match=r"none.jsonl"):
        start(generate_request(model, file=tmp_path / "none.jsonl"))


def mounted(request: TalkRequest) -> set[Path]:
    container = talk_container(request, image="i", devices=(), user="1:1")
    assert all(mount.read_only for mount in container.mounts)
    return {mount.path for mount in container.mounts}


def test_a_container_sees_the_model_and_the_pictures(tmp_path: Path, model: Path) -> None:
    (tmp_path / "models").mkdir()
    places = [tmp_path / name for name in ("a", "b", "prompts", "cwd")]
    for place in places:
        place.mkdir()
        (place / "x.png").touch()
    file = places[2] / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "a", "image": "../b/x.png"}), encoding="utf-8")
    given = PromptLine(prompt="a", image=str(places[0] / "x.png"))
    asked = generate_request(model, prompts=(given,), file=file)
    assert mounted(asked) == {model, tmp_path / "models", *places[:3]}
    chat = in_sight(chat_request(model, image=places[1] / "x.png", folder=places[3]))
    assert mounted(chat) == {model, tmp_path / "models", places[1], places[3]}
    assert chat.chat is not None and set(chat.chat.seen) == {places[1], places[3]}
    root = in_sight(chat_request(model, folder=Path("/")))
    assert root.chat is not None and root.chat.seen == ()


def test_only_a_conversation_gets_the_terminal(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    chat = talk_container(chat_request(model), image="i", devices=["3"], user="1:1").words()
    assert {"--interactive", "--tty", "--rm", "--read-only"} <= set(chat)
    assert chat[chat.index("--gpus") + 1] == '"device=3"'
    prompts = (PromptLine(prompt="a"),)
    other = generate_request(model, prompts=prompts)
    words = talk_container(other, image="i", devices=(), user="1:1").words()
    assert not {"--interactive", "--tty", "--gpus"} & set(words)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    piped = talk_container(chat_request(model), image="i", devices=(), user="1:1").words()
    assert "--interactive" in piped and "--tty" not in piped


def test_without_the_packages_a_container_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launchers_talk, "missing_packages", lambda: ["torch"])
    with pytest.raises(UsageError, match=r"torch not installed: .* --launcher docker"):
        start(chat_request(model))
