"""Archives and models that lie somewhere already: brought by hand, or another data set's."""

import dataclasses
from pathlib import Path

import pytest

from densekit.data.fetch import hub
from densekit.data.fetch.fetch import survey
from densekit.data.fetch.part_job import PartJob
from densekit.errors import DataError
from tests.support.fetch_world import MODEL_FILES, World
from tests.support.files import write_json
from tests.support.published import LANGUAGE, tree


def test_archives_brought_by_hand_are_taken_and_kept(world: World, tmp_path: Path) -> None:
    brought = tmp_path / "usb"
    places = {
        "captions/captions.json": world.server.repositories["dataset", "lab/captions"][
            "captions.json"
        ],
        "captions/images.zip/images.zip": world.server.repositories["dataset", "lab/captions"][
            "images.zip"
        ],
        "train2017.zip": world.server.files["/zips/train2017.zip"],
        "captions/vg/images.zip": world.server.files["/vg/images.zip"],
    }
    model = world.server.repositories["model", LANGUAGE]
    places |= {f"{LANGUAGE}/{name}": model[name] for name in MODEL_FILES}
    for name, content in places.items():
        (brought / name).parent.mkdir(parents=True, exist_ok=True)
        (brought / name).write_bytes(content)
    world.fetch(brought=brought)
    assert not world.server.requests, "no network"
    assert {name: (brought / name).read_bytes() for name in places} == places
    assert len(tree(world.root / "data")) == 1 + 12 + 9 + 1


def test_what_was_brought_is_compared_with_the_catalog(world: World, tmp_path: Path) -> None:
    (part,) = world.named("vg")
    assert isinstance(part, PartJob)
    file = part.file.model_copy(update={"sha256": "0" * 64})
    (tmp_path / "usb" / "captions" / "vg").mkdir(parents=True)
    brought = tmp_path / "usb" / "captions" / "vg" / "images.zip"
    brought.write_bytes(world.server.files["/vg/images.zip"])
    with pytest.raises(DataError, match=r"images.zip is not the published file: SHA-256 .*0000"):
        world.fetch([dataclasses.replace(part, file=file)], brought=tmp_path / "usb")
    assert brought.exists() and not tree(world.root)


def test_what_was_brought_and_is_no_good_is_to_be_brought_again(
    world: World, tmp_path: Path
) -> None:
    (part,) = world.named("vg")
    assert isinstance(part, PartJob)
    place = tmp_path / "usb" / "captions" / "vg"
    place.mkdir(parents=True)
    (place / "images.zip").write_bytes(world.server.files["/vg/images.zip"][:-30])
    with pytest.raises(DataError, match=r"^captions: vg: .*is no whole zip.*: bring it again"):
        world.fetch([part], brought=tmp_path / "usb")
    (place / "images.zip").unlink()
    file = part.file.model_copy(update={"by_hand": "ask its author", "content_url": None})
    by_hand = dataclasses.replace(part, file=file)
    with pytest.raises(DataError, match=r"usb/captions/vg holds no file: bring the files of"):
        world.fetch([by_hand], brought=tmp_path / "usb")
    (place / "1.jpg").write_bytes(b"brought")
    world.fetch([by_hand], brought=tmp_path / "usb")
    assert list(tree(world.root)) == ["data/captions/vg/1.jpg"]


@pytest.mark.parametrize("linked", [True, False])
def test_what_was_brought_takes_room_where_it_is_copied_or_converted(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    folder = tmp_path / "usb" / LANGUAGE
    folder.mkdir(parents=True)
    for name, size in (("config.json", 100), ("pytorch_model.bin", 5000), ("modeling.py", 70)):
        (folder / name).write_bytes(bytes(size))
    if not linked:
        monkeypatch.setattr(hub, "disk", lambda place: str(place).startswith(str(folder)))
    tools = dataclasses.replace(world.tools, brought=tmp_path / "usb")
    (sizes,) = survey(world.named(LANGUAGE), tools).sizes.values()
    assert (sizes.download, sizes.stays) == (0, 5000 if linked else 5000 + 5100)


def test_a_loose_archive_that_may_be_two_is_asked_about(world: World, tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / "images.zip").write_bytes(b"which?")
    with pytest.raises(DataError, match=r"put it at .*captions/vg/images.zip for captions: vg"):
        world.fetch(world.named("vg"), brought=tmp_path / "usb")


def test_an_archive_that_another_data_set_has_is_linked(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSEKIT_CATALOG", str(tmp_path / "catalog.yaml"))
    world.fetch(world.named("coco/train2017") + world.named("images.zip"))
    part = world.named("coco/train2017")[0]
    assert isinstance(part, PartJob)
    hub = {"content_url": "hf://datasets/lab/captions/images.zip", "name": "pictures", "strip": 0}
    other = part.data_set.model_copy(update={"name": "other", "root": "other"})
    linked = [
        dataclasses.replace(part, data_set=other),
        dataclasses.replace(part, data_set=other, file=part.file.model_copy(update=hub)),
    ]
    asked = len(world.server.requests)
    assert "to download: 0 B" in world.fetch(linked)
    assert len(world.server.requests) == asked
    data = world.root / "data"
    for name in ("4.jpg", "00003/3.jpg"):
        place = data / "other" / "coco" / "train2017" / name
        folder = "coco/train2017" if name == "4.jpg" else "images"
        assert place.stat().st_ino == (data / "captions" / folder / name).stat().st_ino
    assert [look.state for _, look in survey(linked, world.tools).looks] == ["complete"] * 2


def test_an_archive_that_two_data_sets_lack_takes_its_room_once(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (part,) = world.named("coco/train2017")
    assert isinstance(part, PartJob)
    other = part.data_set.model_copy(update={"name": "other", "root": "other"})
    twin = dataclasses.replace(part, data_set=other)
    alone, both = (survey(jobs, world.tools) for jobs in ([part], [part, twin]))
    assert both.room()[0].split(" needed")[0] == alone.room()[0].split(" needed")[0]
    assert both.lines()[-1] == alone.lines()[-1]
    write_json(
        tmp_path / "catalog.yaml",
        [entry.model_dump(by_alias=True, mode="json") for entry in (part.data_set, other)],
    )
    monkeypatch.setenv("DENSEKIT_CATALOG", str(tmp_path / "catalog.yaml"))
    world.fetch([part, twin])
    assert world.server.bodies("/zips/train2017.zip") == 1
