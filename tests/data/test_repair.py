"""The catalog's recorded repairs: made where they apply, said, and never over or instead of a
file.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from densekit.data.catalog import DataSet, data_set_of
from densekit.data.doctor.examine import Examination, Request
from tests.support.damaged_data import JPEGS, World, turns

REPAIR = Request(repair=True)


class Tree:
    """A folder laid out as a published data set is."""

    def __init__(self, place: Path, annotations: str, *images: str) -> None:
        self.world = World(place)
        self.world.data_set = _without_counts(annotations)
        self.world.use(template=None, max_length=None)
        self.world.entries = [
            {"id": str(number), "image": image, "conversations": turns("<image>\nWhat?", "It.")}
            for number, image in enumerate(images)
        ]
        self.folder = self.world.folder

    def put(self, *names: str) -> None:
        for number, name in enumerate(names):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(JPEGS[number])

    def repair(self) -> list[tuple[str, str, str | None]]:
        found = self.world.examine(REPAIR)
        return [(one.name, one.source, one.failed) for one in found.repaired]

    def kinds(self, found: Examination | None = None) -> set[str]:
        found = found or self.world.examine(Request())
        return {kind for kind, *_ in found.findings if kind != "duplicate_entry"}


def _without_counts(annotations: str) -> DataSet:
    data_set = data_set_of(annotations)
    assert data_set is not None
    changes: dict[str, Any] = {"entries": None, "distribution": ()}
    return data_set.model_copy(update=changes)


def test_images_of_another_extension_get_a_copy_by_the_right_name(tmp_path: Path) -> None:
    names = [f"ocr_vqa/images/{number}.jpg" for number in (1, 2, 3)]
    tree = Tree(tmp_path, "llava_v1_5_mix665k.json", *names)
    tree.put("ocr_vqa/images/1.png", "ocr_vqa/images/2.gif", "ocr_vqa/images/3.jpg")
    assert tree.kinds() == {"other_extension"}
    assert tree.repair() == [
        ("ocr_vqa/images/1.jpg", "ocr_vqa/images/1.png", None),
        ("ocr_vqa/images/2.jpg", "ocr_vqa/images/2.gif", None),
    ]
    assert (tree.folder / names[0]).read_bytes() == (
        tree.folder / "ocr_vqa/images/1.png"
    ).read_bytes(), "the first file stays"
    assert tree.kinds() == set() and tree.repair() == []


def test_a_repair_is_one_of_the_catalog(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "llava_v1_5_mix665k.json", "coco/train2017/1.jpg")
    tree.put("coco/train2017/1.png")
    assert tree.repair() == [] and tree.kinds() == {"other_extension"}
    tree.world.data_set = None
    assert tree.repair() == []


def test_names_that_leave_the_folder_are_not_repaired(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "1.png").write_bytes(JPEGS[0])
    tree = Tree(tmp_path, "llava_v1_5_mix665k.json", "ocr_vqa/images/../../../outside/1.jpg")
    tree.put("ocr_vqa/images/2.jpg")
    assert tree.repair() == [] and not (outside / "1.jpg").exists()


def test_visual_genome_in_one_folder(tmp_path: Path) -> None:
    names = ("vg/VG_100K/1.jpg", "vg/VG_100K_2/2.jpg", "vg/VG_100K_2/3.jpg")
    tree = Tree(tmp_path, "mgm_instruction.json", *names)
    tree.put("vg/images/1.jpg", "vg/images/2.jpg", "vg/VG_100K_2/3.jpg")
    assert tree.repair() == [
        ("vg/VG_100K", "vg/images", None),
        ("vg/VG_100K_2/2.jpg", "vg/images/2.jpg", None),
    ]
    assert tree.kinds() == set()
    assert (tree.folder / "vg/VG_100K").readlink() == Path("images"), "relative, for containers"


def test_allava_is_linked_to_stage_1(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "mgm_instruction.json", "ALLaVA-4V/images/1.jpg")
    shared = tree.folder.parent / "MGM-Pretrain/ALLaVA-4V/images"
    shared.mkdir(parents=True)
    (shared / "1.jpg").write_bytes(JPEGS[0])
    tree.put("coco/1.jpg")
    assert tree.repair() == [("ALLaVA-4V", "../MGM-Pretrain/ALLaVA-4V", None)]
    assert tree.kinds() == {"outside"}


def test_what_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(tmp_path, "llava_v1_5_mix665k.json", "ocr_vqa/images/1.jpg")
    tree.put("ocr_vqa/images/1.png")

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert tree.repair() == [("ocr_vqa/images/1.jpg", "ocr_vqa/images/1.png", None)], "copied"
    (tree.folder / "ocr_vqa/images/1.jpg").unlink()
    monkeypatch.setattr("shutil.copyfile", refused)
    assert tree.repair() == [
        ("ocr_vqa/images/1.jpg", "ocr_vqa/images/1.png", "Operation not permitted")
    ]


def test_a_broken_link_is_not_replaced(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "llava_v1_5_mix665k.json", "ocr_vqa/images/1.jpg")
    tree.put("ocr_vqa/images/1.png")
    (tree.folder / "ocr_vqa/images/1.jpg").symlink_to("gone.jpg")
    assert tree.repair() == [
        (
            "ocr_vqa/images/1.jpg",
            "ocr_vqa/images/1.png",
            "there is a file by that name",
        )
    ]
    assert tree.kinds() == {"broken_link"}
