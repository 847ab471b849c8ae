"""The environment that a manifest records."""

import json
import platform
import subprocess
from pathlib import Path

import pydantic
import pytest

import densekit
from densekit.run import manifest


def test_the_environment_names_what_ran() -> None:
    found = manifest.environment()
    assert found["densekit"] == densekit.__version__
    assert found["python"] == platform.python_version()
    assert found["packages"]["pydantic"] == pydantic.VERSION
    assert set(found["packages"]) == set(manifest.PACKAGES)
    assert json.loads(json.dumps(found)) == found


def test_a_package_that_is_not_there_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "PACKAGES", ("no-such-package-densekit",))
    assert manifest.environment()["packages"] == {"no-such-package-densekit": None}


def test_the_git_state(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("a", encoding="utf-8")
    git("add", "file")
    git("commit", "-qm", "first")
    assert manifest._git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("b", encoding="utf-8")
    state = manifest._git_state(tmp_path)
    assert state and state["dirty"]


def test_no_git_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert manifest._git_state(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert manifest._git_state(tmp_path) is None
