"""The documentation's site: it builds without a warning, and loads nothing from elsewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.needs import needs
from tests.support.paths import ROOT

pytestmark = [pytest.mark.ranks, pytest.mark.slow]


def test_the_site_builds_and_is_whole(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        needs("docs", "mkdocs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    done = subprocess.run(
        [*command, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {path.relative_to(tmp_path).with_suffix("").as_posix() for path in _pages(tmp_path)}
    written = {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for path in (ROOT / "docs").rglob("*.md")
    }
    assert written | {"index", "CONTRIBUTING", "CHANGELOG", "SECURITY"} <= pages
    reference = (tmp_path / "reference" / "spec.html").read_text(encoding="utf-8")
    assert "densekit.spec.math.Optimizer" in reference and "AdamW" in reference
    for path in _pages(tmp_path):
        loaded = re.findall(
            r"<(?:script|img|link)[^>]+(?:src|href)=\"(https?:[^\"]+)", path.read_text()
        )
        assert not loaded, f"{path.name}: {loaded}"


def _pages(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.html"))
