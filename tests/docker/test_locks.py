"""The requirement files of the images: hashes, no index address, and one set of versions for all of
them.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import tool
from tests.support.needs import needs
from tests.support.paths import ROOT
from tools.lock import CPU_BUILD, LOCKS, with_cpu_build

FOLDER = ROOT / "docker" / "requirements"
FILES = sorted([*FOLDER.glob("*.txt"), *(ROOT / "requirements").glob("*.txt")])
FILES.remove(
    ROOT / "requirements/torch.txt"
)  # torch by whatever build pip offers; its first lines say why
IMAGES = ("a100", "v100")
PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)(?:\[[a-z,]+\])?==([^\s;\\]+)")
HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})(?=\s|$)")


def pins(text: str) -> dict[str, tuple[str, set[str]]]:
    """Package -> its version and hashes."""
    found: dict[str, tuple[str, set[str]]] = {}
    name = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        if match := PIN.match(line):
            name = match[1]
            found[name] = (match[2], set())
        elif line[:1].strip():
            raise ValueError(f"neither a pin nor a hash: {line}")
        if hashed := HASH.search(line):
            found[name][1].add(hashed[1])
    return found


def read(path: Path) -> dict[str, tuple[str, set[str]]]:
    return pins(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_pin_has_hashes(path: Path) -> None:
    found = read(path)
    assert found
    assert [name for name, (_, hashes) in found.items() if not hashes] == []
    assert "://" not in path.read_text(encoding="utf-8"), (
        "no index address: a mirror has to do as well"
    )


def test_the_reader_catches() -> None:
    assert pins("torch==2.8.0 \\\n    --hash=sha256:12\n") == {"torch": ("2.8.0", set())}
    with pytest.raises(ValueError, match="neither"):
        pins("torch>=2.8.0\n")


def test_every_file_is_made_by_make_lock() -> None:
    assert {lock.path for lock in LOCKS} == {str(path.relative_to(ROOT)) for path in FILES}


@pytest.mark.parametrize("target", IMAGES)
def test_one_set_of_versions(target: str) -> None:
    """What the images and the checkout both have, they have in the same version; torch alone
    differs.
    """
    here, image = read(ROOT / "requirements/train.txt"), read(FOLDER / f"{target}.txt")
    assert set(here) <= set(image)
    assert {name for name in here if here[name][0] != image[name][0]} == set()


@pytest.mark.parametrize(
    ("target", "package", "version"),
    [
        ("a100", "torch", "2.8.0"),
        ("a100", "flash-attn", "2.8.3.post2"),
        ("a100", "nvidia-cuda-runtime-cu12", "12.8.90"),
        ("v100", "torch", "2.7.0"),
        ("v100", "xformers", "0.0.30"),
        ("v100", "nvidia-cuda-runtime-cu12", "12.6.77"),
        ("cpu", "torch", "2.13.0"),
    ],
)
def test_what_decides_whether_a_gpu_works(target: str, package: str, version: str) -> None:
    assert read(FOLDER / f"{target}.txt")[package][0] == version


def test_no_image_mixes_cuda_versions() -> None:
    for target in IMAGES:
        assert not [
            name for name in read(FOLDER / f"{target}.txt") if name.endswith(("-cu13", "-cu11"))
        ]
    cudnn = read(FOLDER / "v100.txt")["nvidia-cudnn-cu12"][0]
    assert tuple(map(int, cudnn.split(".")[:2])) < (9, 11), "cuDNN 9.11 dropped Volta"


def test_both_builds_of_torch() -> None:
    text = (FOLDER / "cpu.txt").read_text(encoding="utf-8")
    assert text.count(CPU_BUILD) == 1
    assert len(read(FOLDER / "cpu.txt")["torch"][1]) > 1
    assert with_cpu_build(text.partition("#\n")[2]) == text, "made twice it is the same"
    assert "PIP_EXTRA_INDEX_URL" in text, "it says how to choose"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: Path(lock.path).name)
def test_pins_answer_what_was_asked(lock: object) -> None:
    """Every exact version of a .in file is the one that was pinned (`make lock-check` also
    resolves).
    """
    path = ROOT / lock.path  # type: ignore[attr-defined]
    for source in lock.sources:  # type: ignore[attr-defined]
        for line in (ROOT / source).read_text(encoding="utf-8").splitlines():
            name, exact, version = line.split("#")[0].strip().partition("==")
            name = re.split(r"[>=<~ \[]", name)[0].lower().replace("_", "-")
            if not name or (name == "torch" and path.name in ("train.txt", "cpu-cuda.txt")):
                continue
            assert name in read(path), f"{path.name} lacks {name}; run `make lock`"
            assert not exact or read(path)[name][0] == version, (
                f"{path.name} has another {name}; run `make lock`"
            )


@pytest.mark.system
@pytest.mark.parametrize("name", ["a100", "v100", "cpu", "cpu-cuda", "tensorboard", "sbom"])
def test_the_index_has_every_pin_with_its_hashes(name: str, tmp_path: Path) -> None:
    """Asked anew, without what the lock says: every hash in it is one the index gives for that
    version.
    """
    locked = read(FOLDER / f"{name}.txt")
    asked, answer = tmp_path / "asked.in", tmp_path / "answer.txt"
    asked.write_text(
        "".join(f"{package}=={version}\n" for package, (version, _) in locked.items()),
        encoding="utf-8",
    )
    command = [
        tool("uv"),
        "pip",
        "compile",
        "--quiet",
        "--no-config",
        "--no-deps",
        "--generate-hashes",
        "--python-version",
        "3.12",
        "--python-platform",
        "x86_64-manylinux_2_39",
        "--python",
        sys.executable,
        str(asked),
        "-o",
        str(answer),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode and re.search(
        r"Failed to fetch|error sending request|dns error|timed out", done.stderr
    ):
        needs("index", done.stderr.strip().splitlines()[0])
    assert done.returncode == 0, done.stderr
    given = read(answer)
    wrong = {
        package
        for package, (_, hashes) in locked.items()
        if not hashes - {CPU_BUILD[7:]} <= given[package][1]
    }
    assert wrong == set()
