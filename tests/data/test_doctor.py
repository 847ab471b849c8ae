"""The data doctor finds every planted damage, says its kind, and finds nothing on a clean tree."""

import os
import socket
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from densekit.data.catalog import DataSet
from densekit.data.doctor.examine import Examination, Request
from densekit.data.doctor.kinds import KINDS
from tests.support.damaged_data import GRADIENT, World, turns

FULL = Request(depth="full")
Plant = Callable[[World], object]


def found_kinds(found: Examination) -> set[str]:
    return {group.kind.name for group in found.findings.groups()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("template", [None, "v1", "llama_3", "chatml_direct", "phi", "plain"])
def test_a_clean_tree_has_no_finding(world: World, template: str | None) -> None:
    if template == "plain":
        world.entries = [entry for entry in world.entries if "image" in entry]
        for entry in world.entries:
            entry["conversations"] = turns("<image>", "A caption.")
    found = world.examine(FULL, template=template)
    assert list(found.findings) == []
    assert found.files is not None and len(found.files.pictures) == 6
    assert all(picture.decodes for picture in found.files.pictures.values())


def _save(mode: str = "RGB", **options: Any) -> Plant:
    """Write 0.jpg anew: in another mode, size or format."""
    size = options.pop("size", (24, 16))

    def plant(world: World) -> None:
        kind = options.get("format", "JPEG")
        image = GRADIENT.resize(size)
        image = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
        image.save(world.image(0), **{"format": kind, **options})

    return plant


def _bytes(data: bytes) -> Plant:
    return lambda world: world.image(0).write_bytes(data)


def _instead(make: Callable[[Path], object]) -> Plant:
    """Put something else in the place of 0.jpg."""

    def plant(world: World) -> None:
        world.image(0).unlink()
        make(world.image(0))

    return plant


def _entry(**changes: Any) -> Plant:
    """Change fields of entry 0."""
    return lambda world: world.entries[0].update(changes)


def _turns(*texts: str) -> Plant:
    return _entry(conversations=turns(*texts))


def _text_only(*texts: str) -> Plant:
    def plant(world: World) -> None:
        world.entries[0] = {"id": "0", "conversations": turns(*texts)}

    return plant


def _both(*plants: Plant) -> Plant:
    def plant(world: World) -> None:
        for one in plants:
            one(world)

    return plant


def _file(text: str | bytes) -> Plant:
    """Write the annotation file itself."""

    def plant(world: World) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        world.annotations.write_bytes(data)
        world.written = True

    return plant


def _rename(name: str) -> Plant:
    return lambda world: world.image(0).rename(world.image(0).with_name(name))


def _elsewhere(world: World, name: str) -> None:
    world.image(0).rename(world.folder / name)


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"x")


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def _cut(share: float) -> Plant:
    def plant(world: World) -> None:
        data = world.image(0).read_bytes()
        world.image(0).write_bytes(data[: int(len(data) * share)])

    return plant


def _png_cut(world: World) -> None:
    GRADIENT.save(world.image(0), format="PNG")
    _cut(0.7)(world)


def _flipped(world: World) -> None:
    """A PNG whose pixels do not fit their checksum."""
    GRADIENT.save(world.image(0), format="PNG")
    data = bytearray(world.image(0).read_bytes())
    data[len(data) // 2] ^= 0xFF
    world.image(0).write_bytes(bytes(data))


def _bomb(world: World) -> None:
    """A PNG header of 60,000 by 60,000 pixels."""
    GRADIENT.save(world.image(0), format="PNG")
    data = bytearray(world.image(0).read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    world.image(0).write_bytes(bytes(data))


def _gif(world: World) -> None:
    frames = [GRADIENT.rotate(angle).convert("L").convert("RGB") for angle in (0, 180)]
    frames[0].convert("P").save(
        world.image(0), format="GIF", save_all=True, append_images=[frames[1].convert("P")]
    )


def _exif(world: World) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    GRADIENT.save(world.image(0), format="JPEG", exif=exif)


def _many_the_same(world: World) -> None:
    for number in range(6, 18):
        path = world.folder / f"a/{number}.jpg"
        path.write_bytes(world.image(0).read_bytes())
        world.entries.append(
            {
                "id": f"n{number}",
                "image": f"a/{number}.jpg",
                "conversations": turns(f"<image>\nWhat is {number}?", "A ramp."),
            }
        )


def _collision(world: World) -> None:
    (world.folder / "a/x.jpg").write_bytes(b"1")
    (world.folder / "a/X.jpg").write_bytes(b"2")


def _link_outside(world: World) -> None:
    (world.folder.parent / "elsewhere").mkdir()
    _elsewhere(world, "../elsewhere/0.jpg")
    world.image(0).symlink_to(world.folder.parent / "elsewhere/0.jpg")


def _duplicate(world: World) -> None:
    world.entries.append({**world.entries[0], "id": "other"})


def _catalogued(**entries: Any) -> Plant:
    def plant(world: World) -> None:
        world.data_set = DataSet.model_validate(
            {
                "name": "Made",
                "description": "made",
                "url": "https://example.org",
                "kind": "training",
                "license": {"text": "none", "source": "the test"},
                "annotations": "train.json",
                "root": ".",
                "repository": "a/b",
                "entries": {**entries, "source": "the test"},
                "distribution": [],
            }
        )

    return plant


JPEG_HTML = b"<!DOCTYPE html><html><body>404</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
MP4 = b"\0\0\0\x18ftypisom" + b"\0" * 64
HEIC = b"\0\0\0\x18ftypheic" + b"\0" * 64

DAMAGES: dict[str, tuple[Plant, set[str]]] = {
    # The annotation file.
    "no file": (lambda world: world.use_no_file(), {"annotations"}),
    "cut file": (_file('[{"id": "0", "conver'), {"annotations"}),
    "web page as annotations": (_file("<!doctype html>"), {"annotations"}),
    "LFS pointer as annotations": (_file(POINTER), {"annotations"}),
    "object as annotations": (_file('{"data": []}'), {"annotations"}),
    "number as annotations": (_file("3"), {"annotations"}),
    "empty list": (_file("[]"), {"annotations"}),
    "0 bytes of annotations": (_file(""), {"annotations"}),
    "not UTF-8": (_file(b'[{"id": "\xff"}]'), {"annotations"}),
    "JSON Lines": (lambda world: world.use_lines(), {"annotations_form"}),
    # Entries.
    "a string as entry": (lambda world: world.entries.insert(3, "x"), {"entry_form"}),
    "null as entry": (lambda world: world.entries.insert(3, None), {"entry_form"}),
    "image is a number": (_entry(image=3), {"image_field"}),
    "image is empty": (_entry(image=""), {"image_field"}),
    "two images": (_entry(image=["a/0.jpg", "a/1.jpg"]), {"several_images"}),
    "video": (_entry(video="v.mp4"), {"video"}),
    "sound": (_entry(audio="a.wav"), {"video"}),
    "tools": (_entry(tools="[]"), {"extra_field"}),
    "no conversation": (_entry(conversations=[]), {"no_turns"}),
    "conversations is a text": (_entry(conversations="hello"), {"no_turns"}),
    "turn without value": (_entry(conversations=[{"from": "human"}]), {"turn_form"}),
    "turn is a text": (_entry(conversations=["<image>", "x"]), {"turn_form"}),
    "unknown speaker": (
        _entry(conversations=[{"from": "bob", "value": "<image>"}]),
        {"speaker"},
    ),
    "system turn": (
        _entry(conversations=[{"from": "system", "value": "x"}, *turns("<image>", "b")]),
        {"system_turn"},
    ),
    "two human turns": (
        _entry(conversations=[*turns("<image>")[:1], *turns("a", "b")]),
        {"turn_order"},
    ),
    "gpt alone": (_entry(conversations=[{"from": "gpt", "value": "<image>"}]), {"only_gpt"}),
    "tag without image": (_text_only("<image>\nWhat?", "A cat."), {"tag_without_image"}),
    "tags in two turns": (_turns("<image>\na", "b", "<image>\nc", "d"), {"tags_in_turns"}),
    "a tag inside of a tag": (_turns("<im<image>age>\na", "b"), {"tags_in_turns"}),
    "no words": (_text_only("", " "), {"no_words", "empty_question", "empty_answer"}),
    "half a surrogate": (_turns("<image>\n\ud800", "b"), {"surrogate"}),
    "roles of ShareGPT": (
        _entry(
            conversations=[
                {"from": "user", "value": "<image>\na"},
                {"from": "assistant", "value": "b"},
            ]
        ),
        {"other_roles"},
    ),
    "no id": (lambda world: world.entries[0].pop("id"), {"id_missing"}),
    "an id twice": (_entry(id="1"), {"duplicate_id"}),
    "an entry twice": (_duplicate, {"duplicate_entry"}),
    "no tag": (_turns("What?", "A cat."), {"tag_absent"}),
    "no tag for plain": (
        _both(World.use_plain, _turns("What?", "x")),
        {"tag_missing", "template_shape"},
    ),
    "four turns for plain": (
        _both(World.use_plain, _turns("<image>", "a", "b", "c")),
        {"template_shape"},
    ),
    "two tags in a turn": (_turns("<image><image>\nWhat?", "A cat."), {"tag_repeated"}),
    "tag behind the text": (_turns("What?\n<image>", "A cat."), {"tag_moved"}),
    "tag in an answer": (_turns("What?", "<image> A cat."), {"tag_in_answer"}),
    "gpt opens": (
        _entry(conversations=[{"from": "gpt", "value": "Hi."}, *turns("<image>\na", "b")]),
        {"first_turn_dropped"},
    ),
    "no answer": (_turns("<image>\nWhat?", "A cat.", "Why?"), {"no_answer"}),
    "empty answer": (_turns("<image>\nWhat?", ""), {"empty_answer"}),
    "empty question": (_turns("<image>\nWhat?", "A cat.", " ", "b"), {"empty_question"}),
    "end token in a text": (_turns("<image>\nWhat?", "A cat.</s>"), {"special_token"}),
    "damaged text": (_turns("<image>\nWhat?", "caf\ufffd"), {"damaged_text"}),
    "too many words": (_turns("<image>\nWhat?", "cat " * 3000), {"too_long_words"}),
    # Paths.
    "missing image": (_entry(image="a/none.jpg"), {"missing_image"}),
    "missing folder": (_entry(image="c/0.jpg"), {"image_folder"}),
    "folder in other letter case": (_entry(image="A/0.jpg"), {"image_folder"}),
    "other letter case": (_rename("0.JPG"), {"letter_case"}),
    "other Unicode form": (
        _both(_rename("e\u0301.jpg"), _entry(image="a/\xe9.jpg")),
        {"unicode_form"},
    ),
    "other extension": (_rename("0.png"), {"other_extension"}),
    "one folder deeper": (
        _both(
            lambda world: (world.folder / "a/a").mkdir(),
            lambda world: _elsewhere(world, "a/a/0.jpg"),
        ),
        {"nested_folder"},
    ),
    "address": (_entry(image="https://example.org/0.jpg"), {"image_address"}),
    "backslashes": (_entry(image="a\\0.jpg"), {"windows_path"}),
    "name too long": (_entry(image="a/" + "x" * 300), {"image_path"}),
    "dots in a path": (_entry(image="a/../a/0.jpg"), {"path_form"}),
    "absolute path": (
        lambda world: _entry(image=str(world.image(0)))(world),
        {"absolute_path"},
    ),
    "link that leaves the tree": (_link_outside, {"outside"}),
    "names that differ in case": (_collision, {"case_collision"}),
    "unfinished download": (
        lambda world: (world.folder / "a/9.jpg.part").touch(),
        {"left_over"},
    ),
    # What is in the place of an image.
    "a folder": (_instead(Path.mkdir), {"folder_for_file"}),
    "a pipe": (_instead(os.mkfifo), {"special_file"}),
    "a socket": (_instead(_socket), {"special_file"}),
    "broken link": (_instead(lambda path: path.symlink_to("gone.jpg")), {"broken_link"}),
    "link to itself": (_instead(lambda path: path.symlink_to(path.name)), {"broken_link"}),
    "0 bytes": (_bytes(b""), {"empty_image"}),
    "zeros": (_bytes(b"\0" * 5000), {"zero_filled"}),
    "web page": (_bytes(JPEG_HTML), {"web_page"}),
    "LFS pointer": (_bytes(POINTER), {"lfs_pointer"}),
    "XML of a server": (_bytes(b"<?xml version='1.0'?><Error/>"), {"server_message"}),
    "JSON of a server": (_bytes(b'{"error": "no access"}'), {"server_message"}),
    "text": (_bytes(b"rate limit exceeded\n"), {"text_file"}),
    "zip": (_instead(_zip), {"archive"}),
    "gzip": (_bytes(b"\x1f\x8b\x08" + b"\0" * 20), {"archive"}),
    "PDF": (_bytes(b"%PDF-1.7\n"), {"document"}),
    "PostScript": (_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), {"document"}),
    "SVG": (_bytes(b"<?xml version='1.0'?><svg/>"), {"document"}),
    "video file": (_bytes(MP4), {"media"}),
    "HEIC": (_bytes(HEIC), {"format_not_read"}),
    "noise": (_bytes(bytes(range(128, 256)) * 4), {"not_an_image"}),
    "cut header": (_cut(0.1), {"truncated"}),
    "cut JPEG": (_cut(0.97), {"truncated"}),
    "cut PNG": (_png_cut, {"truncated", "wrong_extension"}),
    "flipped bits": (_flipped, {"undecodable", "wrong_extension"}),
    "bomb": (_bomb, {"too_many_pixels"}),
    # Images that are odd.
    "a gif called .jpg": (_gif, {"wrong_extension", "animated", "palette"}),
    "a png called .jpg": (_save(format="PNG"), {"wrong_extension"}),
    "a webp called .jpg": (_save(format="WEBP"), {"wrong_extension"}),
    "CMYK": (_save("CMYK"), {"cmyk"}),
    "16 bits": (_save("I;16", format="PNG"), {"deep", "wrong_extension"}),
    "16 bits under fixed": (
        _both(lambda world: world.use(semantics="fixed"), _save("I;16", format="PNG")),
        {"deep_refused", "wrong_extension"},
    ),
    "EXIF-rotated": (_exif, {"rotated"}),
    "palette": (_save("P", format="PNG"), {"palette", "wrong_extension"}),
    "alpha": (_save("RGBA", format="PNG"), {"alpha", "wrong_extension"}),
    "30,000 pixels wide": (_save(size=(30_000, 20)), {"very_large", "extreme_shape"}),
    "extreme shape": (_save(size=(400, 10)), {"extreme_shape"}),
    "tiny": (_save(size=(3, 3)), {"tiny"}),
    "one colour": (
        lambda world: Image.new("RGB", (24, 16), "white").save(world.image(0)),
        {"single_colour"},
    ),
    "one picture under many names": (_many_the_same, {"repeated_image"}),
    # Counts.
    "fewer entries": (_catalogued(count=9), {"entry_count"}),
    "other text-only entries": (_catalogued(textOnly=9), {"text_only_count"}),
    "entries of a folder": (_catalogued(folders={"a": 2, "b": 3}), {"folder_entries"}),
    "files of a folder": (
        _both(_catalogued(), lambda world: world.with_file_counts({"a": 4, "b": 3})),
        {"file_count"},
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(world: World, name: str) -> None:
    plant, expected = DAMAGES[name]
    plant(world)
    assert found_kinds(world.examine(FULL)) == expected


@pytest.mark.parametrize("named", ["a/0.jpg", "0.jpg"])
@pytest.mark.parametrize("file", [False, True])
def test_the_image_folder_itself_is_missing(world: World, named: str, file: bool) -> None:
    world.folder = world.folder.with_name("elsewhere")
    if file:
        world.folder.touch()
    world.entries = [entry | {"image": named} for entry in world.entries[:1]]
    found = world.examine(FULL)
    (group,) = found.findings.groups()
    assert group.kind.name == "image_folder"
    assert group.places[0][1] == f"{world.folder}" + " is a file" * file


def test_a_name_that_no_disk_can_hold(world: World) -> None:
    world.entries[0]["image"] = "a/\ud800.jpg"
    (group,) = world.examine(FULL).findings.groups()
    assert group.kind.name == "image_path"
    assert group.places[0][1] == "half of a surrogate pair in its name"


def test_there_are_many_kinds_of_damage() -> None:
    assert len(DAMAGES) >= 90
    planted = set().union(*(kinds for _, kinds in DAMAGES.values()))
    elsewhere = {
        # other tests of this folder
        "certificate_differs",
        "certificate_missing",
        "certificate_new",
        "certificate_file",
        "pin_differs",
        "tokenizer",
        "too_long_tokens",
        "nothing_learnt",
        "labels_masked",
        "decoder_crash",
        "image_folder_closed",
        "unreadable_image",
    }
    assert planted | elsewhere == set(KINDS) and not planted & elsewhere


def test_all_are_found_at_once_with_their_places(world: World) -> None:
    for number in (1, 2):
        world.image(number).write_bytes(JPEG_HTML)
    world.entries += [{**entry, "id": f"again {entry['id']}"} for entry in world.entries[:3]]
    world.entries[1]["conversations"] = []
    found = world.examine(FULL)
    groups = {group.kind.name: group for group in found.findings.groups()}
    assert [place for place, _ in groups["no_turns"].places] == ["entry 1"]
    assert [place for place, _ in groups["web_page"].places] == [
        "a/2.jpg (entry 2 and 1 more)",
        "a/1.jpg (entry 9)",
    ]
    assert found.errors == 3 and found.notes == len(groups["duplicate_entry"].places) == 2
    assert next(group.severity for group in found.findings.groups()) == "error"


def test_a_recipe_that_drops_images_has_notes_up_to_its_ceiling(world: World) -> None:
    world.image(0).unlink()
    world.use(missing="drop", missing_ceiling=0.2)
    found = world.examine(FULL)
    assert found_kinds(found) == {"missing_image"} and found.errors == 0 and found.notes == 1
    world.image(1).unlink()
    assert world.examine(Request()).errors == 2


def test_what_training_refuses_is_an_error_and_the_reverse(tmp_path: Path) -> None:
    """Every planted damage of an entry: Annotations.load refuses it where the doctor does."""
    from densekit.data.annotations import Annotations
    from densekit.errors import DataError

    differing = []
    for number, (name, (plant, kinds)) in enumerate(DAMAGES.items()):
        world = World(tmp_path / str(number))
        plant(world)
        if kinds & {"entry_count", "folder_entries", "no_words", "surrogate", "template_shape"}:
            continue  # known once the recipe is
        world.write()
        refused = any(KINDS[kind].severity == "error" and not KINDS[kind].image for kind in kinds)
        try:
            Annotations.load(world.annotations)
            differing += [name] if refused else []
        except DataError:
            differing += [] if refused else [name]
    assert not differing


def test_a_sample_is_seeded_and_headers_are_all_looked_at(world: World) -> None:
    world.image(3).write_bytes(JPEG_HTML)
    seen: list[set[str]] = []
    for seed in (0, 0, 1, 2, 3):
        found = world.examine(Request(depth="sample", sample=2, seed=seed), cache=f"c{len(seen)}")
        assert found_kinds(found) == {"web_page"} and found.files is not None
        seen.append(
            {name for name, picture in found.files.pictures.items() if picture.sha256 is not None}
        )
    assert all(1 <= len(names) <= 2 for names in seen)
    assert seen[0] == seen[1] and len({frozenset(names) for names in seen}) > 1
