"""The manifest: the environment it records, the hashes it takes, and the seal that shows an edit."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy
import pytest

import densekit
from densekit.errors import DataError
from densekit.files.hashing import file_sha256, json_sha256
from densekit.files.json_files import read_json
from densekit.runs import environment as module
from densekit.runs.environment import environment
from densekit.runs.layout import RunDir
from densekit.runs.manifest import check_seal, complete_manifest, sealed, start_manifest
from tests.support.runs import ENVIRONMENT, make_world, train


def start(folder: Path, **changes: Any) -> dict[str, Any]:
    """The manifest of an attempt whose three models lie in one folder."""
    values: dict[str, Any] = {
        "math": {"schema": 2, "recipe": {"name": "made"}, "starts_from": None, "inputs": {}},
        "environment": ENVIRONMENT,
        "execution": {"gpus": 1},
        "attempts": 2,
        "certificate": {
            "schema": 1,
            "sha256": "5" * 64,
            "steps": 6,
            "samples_dropped": 1,
            "samples_repeated": 2,
        },
        "annotations_sha256": "a" * 64,
        "models": dict.fromkeys(("language_model", "vision_tower", "tokenizer"), folder),
    }
    return start_manifest(**(values | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text("{}", encoding="utf-8")
    return place


def test_the_environment_names_what_ran() -> None:
    found = environment([{"name": "A100", "driver": "550"}])
    assert found["densekit"] == densekit.__version__
    assert found["python"] == platform.python_version()
    assert found["packages"]["numpy"] == numpy.__version__
    assert found["devices"] == [{"name": "A100", "driver": "550"}]
    assert environment()["devices"] == []
    assert json.loads(json.dumps(found)) == found


def test_every_installed_package_is_there_by_its_normalised_name() -> None:
    found = environment()["packages"]
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
    monkeypatch.setattr(module.metadata, "distributions", lambda: found)
    assert environment()["packages"] == {"my-package": "2.0"}


def test_lock_files_and_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "requirements"
    lock.mkdir()
    (lock / "train.txt").write_text("torch==1", encoding="utf-8")
    (lock / "train.in").write_text("torch", encoding="utf-8")
    monkeypatch.setattr(module, "PACKAGE", tmp_path / "densekit")
    monkeypatch.setenv("DENSEKIT_IMAGE_ID", "sha256:abc")
    found = environment()
    assert found["lock"] == {"train.txt": file_sha256(lock / "train.txt")}
    assert found["image"] == "sha256:abc"
    monkeypatch.delenv("DENSEKIT_IMAGE_ID")
    assert environment()["image"] is None


def test_the_git_state(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("a", encoding="utf-8")
    git("add", "file")
    git("commit", "-qm", "first")
    assert module._git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("b", encoding="utf-8")
    state = module._git_state(tmp_path)
    assert state and state["dirty"]


def test_no_git_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert module._git_state(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert module._git_state(tmp_path) is None


def test_what_an_attempt_starts_from(folder: Path) -> None:
    found = start(folder)
    assert (found["state"], found["recipe"], found["attempts"]) == ("running", "made", 2)
    assert found["run"] == json_sha256(
        {"schema": 2, "recipe": {"name": "made"}, "starts_from": None, "inputs": {}}
    )
    assert found["certificate"] == {
        "sha256": "5" * 64,
        "steps": 6,
        "samples_dropped": 1,
        "samples_repeated": 2,
    }
    assert found["data"] == {"annotations_sha256": "a" * 64}
    files = {"config.json": file_sha256(folder / "config.json")}
    assert found["models"]["tokenizer"] == {"revision": None, "files": files}
    assert found["outputs"] == {} and found["metrics_sha256"] is None and found["chain"] is None
    assert json.loads(json.dumps(found)) == found


def test_what_a_complete_run_adds(tmp_path: Path) -> None:
    run = RunDir(train(make_world(tmp_path / "world"), tmp_path / "runs"))
    found = read_json(run.path / "manifest.json")
    lines = run.metrics.read_text(encoding="utf-8").splitlines()
    assert found["state"] == "complete" and found["run"] == run.sha256
    assert found["chain"] == {"steps": len(lines), "sha256": json.loads(lines[-1])["chain"]}
    assert found["metrics_sha256"] == file_sha256(run.metrics)
    assert found["init_sha256"] == file_sha256(run.path / "init.safetensors")
    assert found["outputs"] == {
        "connector.safetensors": file_sha256(run.path / "connector.safetensors")
    }
    assert check_seal(found)


def test_a_run_without_a_step_chains_from_its_own_hash(tmp_path: Path, folder: Path) -> None:
    for name in ("metrics.jsonl", "init.safetensors"):
        (tmp_path / name).write_bytes(b"")
    started = start(folder)
    found = complete_manifest(started, run=tmp_path, init=tmp_path / "init.safetensors", outputs=[])
    assert found["chain"] == {"steps": 0, "sha256": started["run"]}


def test_metrics_that_are_cut_off_complete_nothing(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "cha', encoding="utf-8")
    with pytest.raises(DataError, match=r"metrics\.jsonl: line 1 is not a JSON object"):
        complete_manifest(start(folder), run=tmp_path, init=tmp_path / "metrics.jsonl", outputs=[])


def test_any_edit_breaks_the_seal(folder: Path) -> None:
    found = start(folder)
    assert check_seal(found) and sealed(found) == found
    for name in found:
        assert not check_seal({**found, name: "edited"}), name
        assert not check_seal({key: value for key, value in found.items() if key != name}), name
    assert not check_seal({**found, "more": 1})


@pytest.mark.parametrize(
    ("files", "revision"),
    [
        ({".revision": "abc\n"}, "abc"),
        ({"refs/main": "def"}, "def"),
        ({".cache/huggingface/download/config.json.metadata": "123\netag\n1.0\n"}, "123"),
        (
            {
                ".cache/huggingface/download/a.metadata": "123\n",
                ".cache/huggingface/download/b.metadata": "456\n",
            },
            None,
        ),
        ({".cache/huggingface/download/a.metadata": "not a commit\n"}, None),
        (
            {
                ".cache/huggingface/download/a.metadata": "123\n",
                ".cache/huggingface/download/deep/b.metadata": "123\n",
            },
            "123",
        ),
        ({".revision": ""}, None),
        ({}, None),
    ],
)
def test_the_revision_of_a_model(folder: Path, files: dict[str, str], revision: str | None) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    assert start(folder)["models"]["language_model"]["revision"] == revision


def test_the_revision_of_a_model_in_a_hub_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (tmp_path / "link").symlink_to(snapshot)
    assert start(tmp_path / "link")["models"]["tokenizer"]["revision"] == "0123abcd"
