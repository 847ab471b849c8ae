"""Base images by tag and digest, and the command that builds from them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from densekit.containers.base_images import LOCK, base_images, lock, pinned, read_lock, resolve
from densekit.containers.build import build_command, targets
from densekit.errors import DataError, UsageError
from tests.support.needs import needs

ROOT = Path(__file__).resolve().parents[2]
DIGESTS = ["sha256:" + digit * 64 for digit in "ab"]
DOCKERFILE = """\
ARG CPU_BASE=base/one:1
ARG A100_BASE=base/two:2.0
FROM scratch AS source
FROM ${CPU_BASE} AS cpu-packages
FROM ${CPU_BASE} AS cpu
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")
    return tmp_path


def pretend_docker(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `docker` that runs `script`, first in PATH."""
    path = folder / "bin" / "docker"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\nimport sys\n{script}", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")


ANSWER = f"""
digest = {{"base/one:1": "{DIGESTS[0]}", "base/two:2.0": "{DIGESTS[1]}"}}[sys.argv[4]]
assert sys.argv[1:4] == ["buildx", "imagetools", "inspect"]
print('{{"mediaType": "x", "digest": "%s"}}' % digest)
"""


@pytest.mark.ranks
def test_lock_records_the_registrys_digests(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_docker(checkout, ANSWER, monkeypatch)
    assert read_lock(checkout) == {}
    assert lock(checkout) == {"base/one:1": (None, DIGESTS[0]), "base/two:2.0": (None, DIGESTS[1])}
    assert read_lock(checkout) == {"base/one:1": DIGESTS[0], "base/two:2.0": DIGESTS[1]}
    assert pinned(checkout)["CPU_BASE"] == f"base/one:1@{DIGESTS[0]}"
    command = build_command(checkout, "cpu", ["--pull"])
    assert f"CPU_BASE=base/one:1@{DIGESTS[0]}" in command
    assert command[-2:] == ["--pull", str(checkout)]


@pytest.mark.ranks
def test_changed_tag_is_no_longer_pinned(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_docker(checkout, ANSWER, monkeypatch)
    lock(checkout)
    path = checkout / "docker" / "Dockerfile"
    path.write_text(DOCKERFILE.replace("base/one:1", "base/one:2"), encoding="utf-8")
    assert pinned(checkout)["CPU_BASE"] == "base/one:2"


@pytest.mark.ranks
def test_lock_writes_nothing_when_one_image_fails(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ANSWER + "if 'two' in sys.argv[4]: sys.exit('ERROR: no such host')\n"
    pretend_docker(checkout, script, monkeypatch)
    with pytest.raises(
        UsageError,
        match=r"base/two:2.0 cannot be resolved: ERROR: no such host\nNothing was written",
    ):
        lock(checkout)
    assert not (checkout / LOCK).exists()


@pytest.mark.ranks
@pytest.mark.parametrize("answer", ["{}", '{"digest": "sha256:123"}', "no JSON"])
def test_response_without_a_digest_is_refused(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    pretend_docker(checkout, f"print({answer!r})", monkeypatch)
    with pytest.raises(UsageError, match="returned no digest for base/one:1"):
        resolve("base/one:1")


@pytest.mark.ranks
def test_lock_without_docker_is_refused(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout / "nowhere"))
    with pytest.raises(UsageError, match="`docker` is not installed"):
        lock(checkout)


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"images": {"base/one:1": {}}}', '{"images": {"a:1": {"digest": 3}}}']
)
def test_broken_lock_is_refused(checkout: Path, content: str) -> None:
    (checkout / LOCK).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="densekit containers lock"):
        pinned(checkout)


def test_unknown_targets_are_refused(checkout: Path) -> None:
    with pytest.raises(UsageError, match="no container image is named v100; there are cpu"):
        build_command(checkout, "v100")
    with pytest.raises(UsageError, match="from a checkout"):
        base_images(checkout / "docker")


@pytest.mark.ranks
def test_build_command_of_the_shipped_dockerfile() -> None:
    assert targets(ROOT) == ["cpu", "lmms", "video", "a100", "v100", "tensorboard"]
    command = [
        sys.executable,
        "-m",
        "densekit",
        "containers",
        "build",
        "a100",
        "--print",
        "--",
        "--network",
        "none",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for part in (
        "--target a100",
        "--tag densekit:a100",
        "A100_BASE=nvidia/cuda:12.8.1-base",
        "VERSION=",
        "--network none",
    ):
        assert part in done.stdout


def test_committed_lock_names_the_dockerfiles_images() -> None:
    """A lock that is committed names the images of the Dockerfile and when they were resolved."""
    digests = read_lock(ROOT)
    if not digests:
        needs("registry", f"{LOCK} does not exist; `densekit containers lock` writes it")
    assert set(digests) <= set(base_images(ROOT).values())
    entries = json.loads((ROOT / LOCK).read_text(encoding="utf-8"))["images"].values()
    assert all(entry["resolved"] for entry in entries)
