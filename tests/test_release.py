"""What is checked before a version is released; and that actions are what they were."""

import re
from pathlib import Path

import pytest

from tools.release import problems

ROOT = Path(__file__).resolve().parents[1]
CITATION = "version: 1.2.3"
CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-12-01\n"
USES = re.compile(r"^\s*-? ?uses: (\S+)(?:\s+# (\S+))?", re.MULTILINE)


def test_a_version_that_everything_names_is_released() -> None:
    assert problems("1.2.3", CITATION, CHANGELOG) == []
    assert problems("1.2.4.dev5+g1a2b3c4", CITATION, CHANGELOG) == [], "none is released"


@pytest.mark.parametrize(
    ("version", "said"),
    [("1.2.4", ["CITATION.cff: version is 1.2.3; write 1.2.4", "CHANGELOG.md: no section"])],
)
def test_another_version_is_not(version: str, said: list[str]) -> None:
    found = problems(version, CITATION, CHANGELOG)
    assert len(found) == len(said)
    assert all(part in problem for part, problem in zip(said, found, strict=True))


def test_every_action_is_pinned_to_a_commit_and_says_its_version() -> None:
    found = [
        (path.name, action, version)
        for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
        for action, version in USES.findall(path.read_text(encoding="utf-8"))
    ]
    assert len(found) > 10
    for name, action, version in found:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), f"{name}: {action}"
        assert re.fullmatch(r"v\d+\.\d+\.\d+", version), f"{name}: {action} of which version?"
    of_action: dict[str, set[str]] = {}
    for _, action, _ in found:
        of_action.setdefault(action.partition("@")[0], set()).add(action)
    assert all(len(commits) == 1 for commits in of_action.values()), "one commit of each"
