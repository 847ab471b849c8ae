"""What a manifest says about code that stands in an image, without a checkout around it."""

from pathlib import Path

import pytest

from densekit.runs import environment


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("revision", "git"),
    [
        ("abc1", {"commit": "abc1", "dirty": False}),
        ("abc1-dirty", {"commit": "abc1", "dirty": True}),
        ("", None),
        (None, None),
    ],
)
def test_an_image_says_what_it_was_built_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    revision: str | None,
    git: dict[str, object] | None,
) -> None:
    monkeypatch.setattr(environment, "PACKAGE", tmp_path / "densekit")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.delenv("DENSEKIT_REVISION", raising=False)
    if revision is not None:
        monkeypatch.setenv("DENSEKIT_REVISION", revision)
    assert environment.environment()["git"] == git
