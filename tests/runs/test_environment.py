"""The environment of an attempt: packages, code, image, CPU, variables that change bits."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

import numpy
import pytest

import densekit
from densekit.files.hashing import file_sha256
from densekit.runs import environment
from densekit.runs.environment import Cpu, Device, Environment, GitState

pytestmark = pytest.mark.ranks


@pytest.mark.parametrize(
    ("revision", "git"),
    [
        ("abc1", GitState(commit="abc1", dirty=False)),
        ("abc1-dirty", GitState(commit="abc1", dirty=True)),
        ("", None),
        (None, None),
    ],
)
def test_an_image_says_what_it_was_built_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    revision: str | None,
    git: GitState | None,
) -> None:
    monkeypatch.setattr(environment, "PACKAGE", tmp_path / "densekit")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.delenv("DENSEKIT_REVISION", raising=False)
    if revision is not None:
        monkeypatch.setenv("DENSEKIT_REVISION", revision)
    assert environment.environment().git == git


def test_environment_records_versions_and_devices() -> None:
    found = environment.environment([{"name": "A100", "driver": "550"}])
    assert found.densekit == densekit.__version__
    assert found.python == platform.python_version()
    assert found.packages["numpy"] == numpy.__version__
    assert found.devices == [Device(name="A100", driver="550")]
    assert environment.environment().devices == []
    assert Environment.model_validate(json.loads(json.dumps(found.as_json()))) == found


def test_every_installed_package_is_there_by_its_normalised_name() -> None:
    found = environment.environment().packages
    installed = {found.metadata["Name"] for found in importlib.metadata.distributions()}
    assert len(found) == len(
        {name.lower().replace("_", "-").replace(".", "-") for name in installed if name}
    )
    assert "typing-extensions" in found and not any(
        "_" in name or name != name.lower() for name in found
    )


def test_the_first_package_on_the_path_counts_and_a_broken_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, version in (("first", "2.0"), ("second", "1.0")):
        info = tmp_path / place / f"My_Package-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: My_Package\nVersion: {version}\n", encoding="utf-8")
    (tmp_path / "first" / "broken-1.0.dist-info").mkdir()
    context = importlib.metadata.DistributionFinder.Context(
        path=[str(tmp_path / "first"), str(tmp_path / "second")]
    )
    found = list(importlib.metadata.MetadataPathFinder.find_distributions(context))
    assert len(found) == 3
    monkeypatch.setattr(environment.metadata, "distributions", lambda: found)
    assert environment.environment().packages == {"my-package": "2.0"}


def test_lock_files_and_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "requirements"
    lock.mkdir()
    (lock / "train.txt").write_text("torch==1", encoding="utf-8")
    (lock / "train.in").write_text("torch", encoding="utf-8")
    monkeypatch.setattr(environment, "PACKAGE", tmp_path / "densekit")
    monkeypatch.setenv("DENSEKIT_IMAGE_ID", "sha256:abc")
    found = environment.environment()
    assert found.lock == {"train.txt": file_sha256(lock / "train.txt")}
    assert found.image == "sha256:abc"
    monkeypatch.delenv("DENSEKIT_IMAGE_ID")
    assert environment.environment().image is None


def test_the_git_state(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("a", encoding="utf-8")
    git("add", "file")
    git("commit", "-qm", "first")
    assert environment._git_state(tmp_path) == GitState(
        commit=git("rev-parse", "HEAD"), dirty=False
    )
    (tmp_path / "file").write_text("b", encoding="utf-8")
    state = environment._git_state(tmp_path)
    assert state and state.dirty


def test_no_git_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment._git_state(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert environment._git_state(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("MKL_CBWR", True),
        ("ATEN_CPU_CAPABILITY", True),
        ("ONEDNN_MAX_CPU_ISA", True),
        ("OMP_NUM_THREADS", True),
        ("KMP_AFFINITY", True),
        ("CUBLAS_WORKSPACE_CONFIG", True),
        ("NVIDIA_TF32_OVERRIDE", True),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", True),
        ("LD_PRELOAD", True),
        ("HF_TOKEN", False),
        ("WANDB_API_KEY", False),
        ("TORCHELASTIC_RUN_ID", False),
        ("AWS_SECRET_ACCESS_KEY", False),
    ],
)
def test_variables_that_change_bits_are_recorded_and_no_others(
    monkeypatch: pytest.MonkeyPatch, name: str, recorded: bool
) -> None:
    monkeypatch.setenv(name, "some value")
    assert environment.environment().variables.get(name) == ("some value" if recorded else None)


def test_cpu_model_and_flags(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(
        "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: sse2 avx2\n\n"
        "processor\t: 1\nmodel name\t: Other\nflags\t\t: none\n",
        encoding="utf-8",
    )
    assert environment._cpu(info) == Cpu(model="Some CPU", flags=["avx2", "sse2"])
    info.write_text("processor: 0\nFeatures: fp asimd\n", encoding="utf-8")
    assert environment._cpu(info) == Cpu(model="unknown", flags=["asimd", "fp"])
    assert environment._cpu(tmp_path / "missing") is None


def test_environment_of_an_earlier_version_is_read() -> None:
    value = environment.environment().as_json()
    del value["cpu"], value["variables"]
    found = Environment.model_validate(value)
    assert found.cpu is None and found.variables == {}
