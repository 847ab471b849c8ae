"""docker/Dockerfile without building it: linters, and rules of this house that no linter knows."""

import re
import subprocess
from pathlib import Path

import pytest

from densekit.containers.base_images import base_images
from tests.support.commands import tool
from tests.support.engine import Engine
from tests.support.paths import ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"
SCRIPTS = sorted((ROOT / "docker").rglob("*.sh"))
IMAGES = ("cpu", "a100", "v100", "tensorboard")


def stages(text: str) -> dict[str, str]:
    """Name of a stage -> its instructions."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def unhashed_downloads(text: str) -> list[str]:
    """Lines of a Dockerfile or script that bring something in without a hash."""
    found = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        code = line.split("#")[0]
        if re.search(r"\b(curl|wget|git clone|uv pip|conda)\b", code) or re.match(
            r"ADD\s+https?:", code
        ):
            found.append(line)
        if (
            "pip install" in code
            and "--require-hashes" not in code
            and "--editable /opt/densekit" not in code
        ):
            found.append(line)
    return found


@pytest.mark.ranks
def test_hadolint() -> None:
    done = subprocess.run(
        [tool("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.ranks
def test_hadolint_catches(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text(
        DOCKERFILE.read_text(encoding="utf-8") + "\nFROM debian\nRUN cd /tmp && sudo ls\n",
        encoding="utf-8",
    )
    assert subprocess.run([tool("hadolint"), bad], capture_output=True, check=False).returncode == 1


def check(
    engine: Engine, dockerfile: Path, target: str, base: str
) -> subprocess.CompletedProcess[str]:
    bases = [part for name in base_images(ROOT) for part in ("--build-arg", f"{name}={base}")]
    return engine.run(
        "docker", "build", "--check", "--file", dockerfile, "--target", target, *bases, ROOT
    )


@pytest.mark.parametrize("target", [*IMAGES, "lmms", "video"])
def test_check_of_the_engine(engine: Engine, empty_image: str, target: str) -> None:
    done = check(engine, DOCKERFILE, target, empty_image)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no warnings found" in done.stdout + done.stderr


def test_check_of_the_engine_catches(engine: Engine, empty_image: str, tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text(
        DOCKERFILE.read_text(encoding="utf-8") + "ENV API_TOKEN=x\nCMD ls\n", encoding="utf-8"
    )
    done = check(engine, bad, "tensorboard", empty_image)
    assert done.returncode != 0
    assert "SecretsUsedInArgOrEnv" in done.stdout + done.stderr


def test_no_frontend_is_fetched() -> None:
    assert not re.search(r"^#\s*syntax\s*=", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", [DOCKERFILE, *SCRIPTS], ids=lambda path: path.name)
def test_nothing_is_downloaded_without_a_hash(path: Path) -> None:
    assert unhashed_downloads(path.read_text(encoding="utf-8")) == []


def test_the_rule_for_downloads_catches() -> None:
    lines = [
        "RUN curl -O x",
        "ADD https://example.com/x /x",
        "pip install torch",
        "RUN pip \\\n    install -q torch",
    ]
    assert all(unhashed_downloads(line) for line in lines[:3])
    assert not unhashed_downloads("pip install --require-hashes -r x.txt")


@pytest.mark.parametrize("target", IMAGES)
def test_images_run_as_a_user_without_rights(target: str) -> None:
    stage = stages(DOCKERFILE.read_text(encoding="utf-8"))[target]
    assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE) == ["1000:1000"]
    assert stage.rindex("USER ") > stage.rindex("RUN ")
    assert 'ENTRYPOINT ["tini"' in stage


@pytest.mark.parametrize("target", ["lmms", "video"])
def test_the_cpu_image_with_packages_beside_it(target: str) -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert f"FROM cpu AS {target}\n" in text
    stage = stages(text)[target]
    assert re.findall(r"sh (/build/\S+)$", stage, re.MULTILINE) == ["/build/contents.sh"]
    assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE) == ["0:0", "1000:1000"]
    assert stage.rindex("USER ") > stage.rindex("RUN ") > stage.rindex("COPY ")


def test_the_compiler_stays_behind() -> None:
    """The devel base is that of one stage, and that stage is no image."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert (
        re.findall(r"^FROM \$\{(\w+)\} AS (\S+)$", text, re.MULTILINE).count(
            ("A100_DEVEL", "a100-packages")
        )
        == 1
    )
    assert text.count("${A100_DEVEL}") == 1
    assert "g++" not in stages(text)["a100"]
    packages = (ROOT / "docker/build/packages.sh").read_text(encoding="utf-8")
    assert "FLASH_ATTENTION_FORCE_BUILD=TRUE" in packages


def test_the_context_holds_what_is_copied_and_no_more() -> None:
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {path.split("/")[0] for line in copied for path in line.split()} == allowed
