"""The manifest: the hashes it takes, and the seal that shows an edit."""

import json
from pathlib import Path
from typing import Any

import pytest

from densekit.batching.certificate import BatchCertificate
from densekit.errors import DataError
from densekit.files.hashing import check_seal, file_sha256, sealed
from densekit.files.json_files import read_json
from densekit.runs.environment import Environment
from densekit.runs.layout import RunDir
from densekit.runs.manifest import (
    Certified,
    Chain,
    Manifest,
    ModelFiles,
    complete_manifest,
    hash_models,
    start_manifest,
)
from densekit.spec.execution import Execution
from densekit.spec.math import RunMath
from tests.support.runs import ENVIRONMENT, made_math, make_world, train


def start(folder: Path, **changes: Any) -> Manifest:
    """The manifest of an attempt whose three models lie in one folder."""
    values: dict[str, Any] = {
        "math": RunMath(recipe=made_math(), starts_from=None),
        "environment": Environment.model_validate(ENVIRONMENT),
        "execution": Execution(),
        "attempts": 2,
        "certificate": BatchCertificate(
            num_samples=9,
            steps=6,
            samples_dropped=1,
            samples_repeated=2,
            sha256="5" * 64,
            source="made",
        ),
        "annotations_sha256": "a" * 64,
        "models": hash_models(
            dict.fromkeys(("language_model", "vision_tower", "tokenizer"), folder)
        ),
        "init": Path(__file__),
    }
    return start_manifest(**(values | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text("{}", encoding="utf-8")
    return place


def test_what_an_attempt_starts_from(folder: Path) -> None:
    found = start(folder)
    assert (found.state, found.recipe, found.attempts) == ("running", "made", 2)
    assert found.run == RunMath(recipe=made_math(), starts_from=None).sha256
    assert found.certificate == Certified(
        sha256="5" * 64, steps=6, samples_dropped=1, samples_repeated=2
    )
    assert found.data.annotations_sha256 == "a" * 64
    files = {"config.json": file_sha256(folder / "config.json")}
    assert found.models["tokenizer"] == ModelFiles(revision=None, files=files)
    assert found.init_sha256 == file_sha256(Path(__file__))
    assert found.outputs == {} and found.metrics_sha256 is None and found.chain is None
    assert Manifest.model_validate(json.loads(json.dumps(found.as_json()))) == found
    assert list(found.as_json())[-5:] == [
        "init_sha256",
        "metrics_sha256",
        "chain",
        "outputs",
        "sha256",
    ]


def test_the_root_of_a_data_certificate_is_there_where_one_was_known(folder: Path) -> None:
    without, found = start(folder), start(folder, certificate_root="c" * 64)
    assert without.as_json()["data"] == {"annotations_sha256": "a" * 64}, "as before there were any"
    assert found.as_json()["data"]["certificate_root"] == "c" * 64
    assert check_seal(found.as_json()) and check_seal(without.as_json())
    assert Manifest.model_validate(json.loads(json.dumps(found.as_json()))) == found


def test_what_a_complete_run_adds(tmp_path: Path) -> None:
    run = RunDir(train(make_world(tmp_path / "world"), tmp_path / "runs"))
    found = read_json(run.path / "manifest.json")
    lines = run.metrics.read_text(encoding="utf-8").splitlines()
    assert found["state"] == "complete" and found["run"] == run.sha256
    assert found["chain"] == {"steps": len(lines), "sha256": json.loads(lines[-1])["chain"]}
    assert found["metrics_sha256"] == file_sha256(run.metrics)
    assert found["init_sha256"] == file_sha256(run.path / "init.safetensors")
    assert found["outputs"] == {
        name: file_sha256(run.path / name) for name in ("connector.safetensors", "results.json")
    }
    assert check_seal(found)


def test_a_run_without_a_step_chains_from_its_own_hash(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    started = start(folder)
    found = complete_manifest(started, run=tmp_path, outputs=[])
    assert found.chain == Chain(steps=0, sha256=started.run)


def test_metrics_that_are_cut_off_complete_nothing(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "cha', encoding="utf-8")
    with pytest.raises(DataError, match=r"metrics\.jsonl: line 1 is not a JSON object"):
        complete_manifest(start(folder), run=tmp_path, outputs=[])


def test_any_edit_breaks_the_seal(folder: Path) -> None:
    found = start(folder).as_json()
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
    assert start(folder).models["language_model"].revision == revision


def test_the_revision_of_a_model_in_a_hub_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (tmp_path / "link").symlink_to(snapshot)
    assert start(tmp_path / "link").models["tokenizer"].revision == "0123abcd"
