"""`densekit data`: what it prints, its exit codes, and what it refuses."""

import json
from pathlib import Path

import pytest

from densekit.data.catalog import DataSet
from densekit.data.doctor import subject
from densekit.data.doctor.pins import PINS_FILE
from tests.support.command_line import Cli
from tests.support.damaged_data import JPEGS, World, turns


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Data beside an annotation file of the working directory."""
    world = World(tmp_path)
    world.annotations = tmp_path / "images/train.json"
    world.write()
    monkeypatch.chdir(tmp_path)
    return world


ALONE = ("--workers", 0, "--cache-dir", "cache")


def test_a_clean_file(world: World, run_cli: Cli) -> None:
    found = run_cli("data", "verify", world.annotations, *ALONE, "--sample", 2)
    assert found.code == 0, found.err
    assert "8 entries: 6 with an image, 2 text only" in found.out
    assert "6 of 6 images there, 2 decoded" in found.out
    assert "ok: training takes these data (0 notes)" in found.out


def test_one_is_not_said_as_many(world: World, run_cli: Cli) -> None:
    world.annotations.write_text(json.dumps(world.entries[:1]))
    found = run_cli("data", "verify", world.annotations, *ALONE, "--full")
    assert "1 entry: 1 with an image, 0 text only; 1 of 1 image there, 1 decoded" in found.out
    assert "over 1 file\n" in found.out


def test_findings_are_a_table_and_exit_code_3(world: World, run_cli: Cli) -> None:
    world.image(0).write_bytes(b"<html>")
    world.image(4).unlink()
    found = run_cli("data", "verify", world.annotations, *ALONE, "--full")
    assert found.code == 3
    for words in ("web page instead of an", "image is missing", "a/0.jpg (entry 0)", "fail: 2"):
        assert words in found.out, words
    assert "certificate " in found.out and "over 5 files" in found.out


def test_json_for_programs(world: World, run_cli: Cli) -> None:
    world.image(0).write_bytes(b"<html>")
    found = run_cli("data", "verify", world.annotations, *ALONE, "--json")
    report = json.loads(found.out)
    assert found.code == 3 and report["schema"] == 1 and not report["ok"]
    assert [group["kind"] for group in report["findings"]] == ["web_page"]


def test_repairs_are_said(run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/ocr_vqa/images"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(JPEGS[0])
    entry = {"id": "1", "image": "ocr_vqa/images/1.jpg", "conversations": turns("<image>", "a")}
    path = tmp_path / "data/llava_v1_5_mix665k.json"
    path.write_text(json.dumps([entry]))
    missing = run_cli("data", "verify", path, *ALONE)
    assert "What is known of" in missing.out and "355 images of OCR-VQA" in missing.out
    found = run_cli("data", "verify", path, *ALONE, "--repair")
    assert "What is known of" not in found.out, "every image is there"
    line = "repaired: ocr_vqa/images/1.jpg from ocr_vqa/images/1.png"
    assert line in found.out
    assert "another number of entries" in found.out and found.code == 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["verify", "nothing"], 2, "is no recipe, no data set of the catalog"),
        (["verify", "x.json", "--full", "--sample", "3"], 2, "--sample --full: give one"),
        (["verify", "x.json", "--against", "c.json"], 2, "give --full too"),
        (["verify", "x.json", "--sample", "-1"], 2, "--sample"),
        (["pin", "x.json"], 2, "is no copy of a data set of the catalog"),
        (["croissant", "nothing"], 2, "the catalog has no 'nothing'; it has LLaVA-Pretrain"),
    ],
)
def test_wrong_words(
    run_cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run_cli("data", *words)
    assert found.code == code and message in found.err
    assert list(tmp_path.iterdir()) == []


def test_pins(run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    made = DataSet.model_validate(
        {
            "name": "Mine",
            "description": "d",
            "url": "u",
            "kind": "training",
            "annotations": "train.json",
            "root": ".",
            "license": {"text": "t", "source": "s"},
            "distribution": [],
        }
    )
    monkeypatch.setattr(subject, "data_set_of", lambda name: made)
    data = ("--data-dir", "images", *ALONE)
    verify = ("data", "verify", world.annotations, *data)
    first = run_cli("data", "pin", world.annotations, *data)
    assert first.code == 0 and "not pinned: `densekit data verify --full`" in first.out, first.err
    assert run_cli(*verify, "--full").code == 0
    assert "not pinned" not in run_cli("data", "pin", world.annotations, *data).out
    pins = json.loads((tmp_path / "images" / PINS_FILE).read_text())["data_sets"]["Mine"]
    assert len(pins["annotations_sha256"]) == len(pins["certificate_root"]) == 64

    world.entries.pop()
    world.write()
    found = run_cli(*verify)
    assert found.code == 3 and "differs from its pin" in found.out
    refused = run_cli("data", "pin", world.annotations, *data)
    assert refused.code == 3 and "is pinned as" in refused.err
    assert run_cli("data", "pin", world.annotations, *data, "--again").code == 0
    assert run_cli(*verify).code == 0

    world.image(0).unlink()
    broken = run_cli("data", "pin", world.annotations, *data)
    assert broken.code == 3 and "1 error, so it is not pinned" in broken.err


def test_croissant(run_cli: Cli) -> None:
    found = json.loads(run_cli("data", "croissant", "LLaVA-Pretrain").out)
    assert found["name"] == "LLaVA-Pretrain" and len(found["distribution"]) == 3
