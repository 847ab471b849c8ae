"""The one reader of a run directory: what it reads, and that damage in one file hides no other."""

import shutil
from pathlib import Path

import pytest

from densekit.audit.run_reader import read_run
from densekit.errors import DataError
from densekit.files.hashing import sealed
from densekit.files.json_files import read_json, write_json
from densekit.runs.layout import RunDir
from densekit.spec.execution import Execution
from tests.support.runs import STEPS, make_world, train


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    return train(make_world(folder / "world"), folder / "runs")


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / original.name))


def test_complete_run(original: Path) -> None:
    found = read_run(original).intact()
    contract = RunDir(original)
    assert (found.math, found.status) == (contract.math, contract.status)
    assert found.execution == contract.execution and found.complete
    assert found.manifest is not None and found.environment == found.manifest.environment
    assert [step.step for step in found.steps] == list(range(1, STEPS + 1))
    assert [fed.step for fed in found.feed] == list(range(1, STEPS + 1))
    assert found.inputs == {"annotations": found.manifest.data.annotations_sha256}


def test_run_before_its_first_attempt(run: Path) -> None:
    for path in run.iterdir():
        if path.name not in ("math.json", "status.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = read_run(run).intact()
    assert found.manifest is None and found.execution is None and found.environment is None
    assert found.steps == [] and found.feed == [] and found.earlier == {}


@pytest.mark.parametrize("name", ["math.json", "status.json", "manifest.json"])
def test_damage_in_one_file_hides_no_other(run: Path, name: str) -> None:
    (run / name).write_text("{", encoding="utf-8")
    found = read_run(run)
    assert list(found.damage) == [name] and len(found.steps) == STEPS
    parts = {
        "math.json": found.math,
        "status.json": found.status,
        "manifest.json": found.manifest,
    }
    assert [file for file, part in parts.items() if part is None] == [name]
    assert found.complete, "status and manifest both say that a run ended"
    assert found.execution is not None and found.environment is not None
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        found.intact()


@pytest.mark.parametrize("name", ["metrics.jsonl", "feed.jsonl"])
def test_damaged_records(run: Path, name: str) -> None:
    (run / name).write_text("{\n", encoding="utf-8")
    found = read_run(run)
    assert list(found.damage) == [name] and len(found.steps) + len(found.feed) == STEPS
    found.require("math.json", "manifest.json")
    with pytest.raises(DataError, match=f"{name}: line 1 is not a JSON object"):
        found.require(name)


def test_execution_of_schema_1_in_a_manifest(run: Path) -> None:
    manifest = read_json(run / "manifest.json")
    old = {"device": "cpu", "gpus": 4, "checkpointing": True, "micro_batches": [[1]]}
    write_json(run / "manifest.json", sealed({**manifest, "execution": old}))
    found = read_run(run).intact()
    assert found.execution == Execution(world_size=4, activation_checkpointing=True)


def test_execution_that_nobody_wrote(run: Path) -> None:
    manifest = read_json(run / "manifest.json")
    write_json(run / "manifest.json", {**manifest, "execution": {"gpus": "many"}})
    found = read_run(run)
    assert found.execution is None and found.manifest is not None
    with pytest.raises(DataError, match=r"manifest\.json: execution: world_size"):
        found.intact()


@pytest.mark.parametrize("name", ["nothing", "empty", "file"])
def test_folder_without_math_json_is_not_read_as_a_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=rf"{name} is not a run directory: it has no math\.json"):
        read_run(tmp_path / name)


def test_an_unpacked_dossier_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "dossier.json").write_text("{}")
    with pytest.raises(DataError, match=r"no math\.json; it is a dossier, unpacked: .*\.zip"):
        read_run(tmp_path)
