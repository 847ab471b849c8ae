"""The container engine's errors as messages, where no engine is needed to cause them."""

from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError

from densekit.errors import DataError, UsageError
from densekit.launch.launchers.docker.client import Engine, connect, one_sentence_errors
from densekit.launch.launchers.docker.container import container_of
from tests.support.launching import stub_run


@pytest.mark.usefixtures("bare_host")
def test_missing_engine_is_named() -> None:
    with pytest.raises(
        UsageError, match=r"no container engine answers \(.*start one .*or use --launcher local"
    ):
        connect()


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (
            'could not select device driver "nvidia" with capabilities: [[gpu]]',
            "install the NVIDIA Container Toolkit",
        ),
        (
            "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8",
            "driver of this host is too old for the container image",
        ),
        ("write /var/lib/x: no space left on device", "the disk of the container engine is full"),
        ("something else\nand more", "^the container engine refuses: something else$"),
    ],
)
def test_docker_errors_become_one_line_messages(answer: str, meaning: str) -> None:
    with pytest.raises(DataError, match=meaning) as caught, one_sentence_errors():
        raise APIError("500 Server Error", explanation=answer)
    assert "\n" not in str(caught.value)


def test_container_has_no_rights_and_nothing_to_write_but_its_mounts(tmp_path: Path) -> None:
    """The engine's call and the command that is printed say the same."""
    asked: dict[str, Any] = {}

    class Client:
        class containers:
            @staticmethod
            def create(*arguments: object, **options: object) -> StubContainer:
                asked.update(options)
                raise APIError("500", explanation="no")

    run, execution = stub_run(tmp_path, "")
    container = container_of(run, execution, image="x", image_id="y", devices=[], user="1:1")
    with pytest.raises(DataError):
        Engine(Client()).start(container)
    assert asked["cap_drop"] == ["ALL"] and asked["security_opt"] == ["no-new-privileges:true"]
    assert asked["read_only"] is True and [*asked["tmpfs"]] == ["/tmp"]
    assert "noexec" not in asked["tmpfs"]["/tmp"] and asked["environment"]["HOME"] == "/tmp"
    printed = container.shell()
    assert "--cap-drop ALL --security-opt no-new-privileges:true --read-only --tmpfs" in printed
    assert f"/tmp:{asked['tmpfs']['/tmp']}" in printed and "HOME=/tmp" in printed


class StubContainer:
    """A container whose start is refused."""

    removed = False

    def start(self) -> None:
        raise APIError("500", explanation="could not select device driver")

    def remove(self, force: bool) -> None:
        self.removed = True


def test_container_that_does_not_start_is_removed(tmp_path: Path) -> None:
    made = StubContainer()

    class Client:
        class containers:
            create = staticmethod(lambda *arguments, **options: made)

    run, execution = stub_run(tmp_path, "")
    container = container_of(run, execution, image="x", image_id="y", devices=["0"], user="1:1")
    with pytest.raises(DataError, match="cannot give GPUs to containers"):
        Engine(Client()).start(container)
    assert made.removed
