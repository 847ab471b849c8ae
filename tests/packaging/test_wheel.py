"""The wheel: it holds what the checkout has, says what it is, and works where nothing else is."""

import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from densekit.audit.dossier.pack import pack
from tests.support.commands import prepare
from tests.support.paths import ROOT
from tests.support.runs import make_world, train

pytestmark = pytest.mark.ranks

SOURCE = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "CITATION.cff")
FOLDERS = ("densekit", "recipes", "requirements")
VERSION = "1.2.3"
EXTRAS = {"train", "evaluate", "docs", "dev", "demo", "video"}


def copied_source(to: Path) -> Path:
    """What a wheel is made of, without .git: the version is told."""
    for name in SOURCE:
        shutil.copy(ROOT / name, to / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def build(source: Path, to: Path, version: str | None = VERSION) -> Path:
    """`pip wheel` of a folder, with the packages that are here; the wheel."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    told = {"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_DENSEKIT": version} if version else {}
    subprocess.run(
        [*command, "--wheel-dir", to, source], check=True, env={**os.environ, **told}, timeout=300
    )
    (wheel,) = to.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One wheel for all tests."""
    source = copied_source(tmp_path_factory.mktemp("source"))
    return build(source, tmp_path_factory.mktemp("wheel"))


def metadata(wheel: Path) -> Message:
    """METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(opened.read(name))


def test_the_wheel_holds_what_the_checkout_has(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}
        recipe = opened.read("densekit/shipped/recipes/vicuna7b_stage2.yaml")
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "densekit").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {
        f"densekit/shipped/{path.relative_to(ROOT).as_posix()}"
        for path in [*(ROOT / "recipes").rglob("*.yaml"), ROOT / "CITATION.cff"]
    }
    assert held == wanted
    assert "densekit/py.typed" in held
    assert recipe == (ROOT / "recipes/vicuna7b_stage2.yaml").read_bytes()


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    said = metadata(wheel)
    assert said["Version"] == VERSION
    assert said["License-Expression"] == "Apache-2.0"
    assert said["Requires-Python"] == ">=3.11"
    assert said["Summary"] and said["Description-Content-Type"] == "text/markdown"
    assert "Typing :: Typed" in (said.get_all("Classifier") or [])
    assert set(said.get_all("Provides-Extra") or []) == EXTRAS
    required = said.get_all("Requires-Dist") or []
    driver = [line for line in required if "extra ==" not in line]
    assert driver and not [line for line in driver if line.startswith(("torch", "setuptools"))]
    for extra in ("train", "evaluate"):
        assert [line for line in required if line.startswith("torch==") and f'"{extra}"' in line]


@pytest.mark.slow
def test_a_copy_without_git_and_tag_builds_too(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "wheel").mkdir()
    source = copied_source(tmp_path / "source")
    assert metadata(build(source, tmp_path / "wheel", None))["Version"].startswith("0.0")


@pytest.mark.slow
def test_the_driver_alone_works_where_nothing_else_is(wheel: Path, tmp_path: Path) -> None:
    """A fresh environment with the wheel and its driver's packages, outside the checkout."""
    run = train(make_world(tmp_path / "world"), tmp_path / "runs")
    pack([run], tmp_path / "dossier.zip")
    place = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    locked = ("--no-deps", "--require-hashes", "-r", ROOT / "requirements/driver.txt")
    prepare("index", place / "bin/python", "-m", "pip", "install", "-q", *map(str, locked))
    subprocess.run(
        [place / "bin/python", "-m", "pip", "install", "-q", "--no-deps", wheel], check=True
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def densekit(*arguments: str | Path, codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            [place / "bin/densekit", *arguments],
            cwd=elsewhere,
            env={"PATH": os.environ["PATH"], "HOME": str(elsewhere), "COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in codes, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    assert densekit("--version") == f"{VERSION}\n"
    assert "vicuna7b_stage2" in densekit("recipes")
    assert "\nfits: " in densekit("plan", "vicuna7b_stage2")
    sources = densekit("show", "vicuna7b_stage2", "--sources")
    assert "recipes/base/llava15_stage2.yaml" in sources and "official finetune script" in sources
    assert "engine" in densekit("doctor", codes=(0, 1))
    assert "hash chain" in densekit("verify", tmp_path / "dossier.zip")
    assert '"$schema"' in densekit("schema")
    check = "import importlib.util as u; assert not u.find_spec('torch')"
    subprocess.run([place / "bin/python", "-c", check], check=True)
