"""Archives of strangers: extracted whole and again after a kill, refused where they would leave the
folder, link or explode.
"""

import io
import re
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from densekit.data.fetch import archives
from densekit.data.fetch.archives import BrokenArchiveError, extract, unpacked_bytes
from densekit.errors import DataError

FILES = {"train2017/1.jpg": b"one" * 40, "train2017/deep/2.jpg": b"two" * 70, "top.txt": b""}


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("train2017")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def second_entry(data: bytearray) -> int:
    """Where the list of a zip has its second entry; the first is the folder."""
    return data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize(
    ("strip", "expected"),
    [
        (0, FILES),
        (1, {"1.jpg": FILES["train2017/1.jpg"], "deep/2.jpg": FILES["train2017/deep/2.jpg"]}),
    ],
)
def test_files_are_put_where_the_catalog_says(
    tmp_path: Path, make: object, strip: int, expected: dict[str, bytes]
) -> None:
    name = "a.zip" if make is zipped else "a.tar.gz"
    archive = make(tmp_path / name, FILES)  # type: ignore[operator]
    told: list[int] = []
    found = extract(archive, tmp_path / "out", strip=strip, tell=told.append)
    assert tree(tmp_path / "out") == expected
    assert (found.files, found.bytes) == (len(expected), sum(map(len, expected.values())))
    assert told[-1] == found.bytes
    assert unpacked_bytes(archive) == (sum(map(len, FILES.values())) if make is zipped else None)


def test_a_second_extraction_writes_only_what_is_not_there_whole(tmp_path: Path) -> None:
    archive, out = zipped(tmp_path / "a.zip", FILES), tmp_path / "out"
    extract(archive, out)
    first = out / "train2017" / "1.jpg"
    second = out / "train2017" / "deep" / "2.jpg"
    kept = first.stat().st_ino
    second.write_bytes(b"x" * second.stat().st_size)  # the same size, other bytes
    (out / "top.txt").unlink()
    extract(archive, out)
    assert tree(out) == FILES and first.stat().st_ino == kept


@pytest.mark.parametrize(
    "name", ["../up.txt", "/etc/up.txt", "a/../../up.txt", "a\\..\\up.txt", "x" * 300]
)
@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_no_path_leaves_the_folder(tmp_path: Path, name: str, kind: str) -> None:
    files = {"ok.txt": b"ok", name: b"bad"}
    path = tmp_path / kind
    archive = zipped(path, files) if kind == "a.zip" else tarred(path, files, "w")
    with pytest.raises(DataError, match=r"would leave the folder|longer than a file's name"):
        extract(archive, tmp_path / "out" / "in")
    assert not list(tmp_path.rglob("up.txt"))


def test_links_are_not_extracted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as other:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        other.writestr(info, "/etc/passwd")
    for name in ("a.tar", "a.zip"):
        with pytest.raises(DataError, match="link is a link or a device"):
            extract(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out" / "link").is_symlink()


def test_a_bomb_is_refused_before_its_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FLOOR", 1000)
    bomb = zipped(tmp_path / "a.zip", {"zeros": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="1048576 bytes at least; the limits are 200 times"):
        extract(bomb, tmp_path / "out")
    tar = tarred(tmp_path / "a.tar.gz", {"zeros": bytes(1 << 20)})
    with pytest.raises(DataError, match="the limits are 200 times"):
        extract(tar, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_member_that_is_larger_than_it_claims_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a": b"x" * 100})
    data = bytearray(path.read_bytes())
    at = data.index(
        b"PK\x01\x02", data.index(b"PK\x01\x02") + 1
    )  # the second: the first is a folder
    data[at + 24 : at + 28] = struct.pack("<I", 50)
    path.write_bytes(data)
    with pytest.raises(DataError):
        extract(path, tmp_path / "out")
    assert not (tmp_path / "out" / "a").exists()


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_archive_says_so(tmp_path: Path, name: str, damage: str) -> None:
    files = {f"{number}.jpg": bytes([number]) * 500 for number in range(20)}
    make = zipped if name == "a.zip" else tarred
    archive = make(tmp_path / name, files)
    data = bytearray(archive.read_bytes())
    if damage == "flipped":
        data[len(data) // 3] ^= 255
    archive.write_bytes(data[: {"truncated": len(data) // 2, "empty": 0}.get(damage, len(data))])
    with pytest.raises(BrokenArchiveError, match=r"is no whole|holds no file|ends after"):
        extract(archive, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.jpg"):
        assert path.read_bytes() == files[path.name], "what appears is whole"


def spoil(data: bytearray, damage: str) -> bytes:
    """A zip with wrong bytes where zipfile itself looks first."""
    if damage == "list":
        data[second_entry(data)] = 0
    if damage == "name":
        data[data.index("\u00e9".encode(), second_entry(data))] = 0xFF
    if damage == "bz2":
        data[data.index(b"BZh") + 5] ^= 255
    return bytes(data[50:] if damage == "head" else data)


@pytest.mark.parametrize("damage", ["list", "name", "bz2", "head"])
def test_a_zip_whose_list_or_head_is_damaged_is_no_whole_archive(
    tmp_path: Path, damage: str
) -> None:
    archive = zipped(tmp_path / "a.zip", {"\u00e9.jpg": b"x" * 500}, zipfile.ZIP_BZIP2)
    assert unpacked_bytes(archive) == 500
    archive.write_bytes(spoil(bytearray(archive.read_bytes()), damage))
    assert unpacked_bytes(archive) in (500, None)
    with pytest.raises(BrokenArchiveError, match="is no whole archive"):
        extract(archive, tmp_path / "out")


def test_a_web_page_in_place_of_an_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"<!doctype HTML><p>quota exceeded")
    with pytest.raises(DataError, match=re.escape("a.zip is a web page, not an archive")):
        extract(tmp_path / "a.zip", tmp_path / "out")


def test_two_different_files_of_one_name_and_encrypted_ones_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/a", b"1")
        archive.writestr("y/a", b"2")
    with pytest.raises(DataError, match="two different files a"):
        extract(tmp_path / "a.zip", tmp_path / "out", strip=1)
    path = zipped(tmp_path / "b.zip", {"a": b"1"})
    data = bytearray(path.read_bytes())
    at = second_entry(data)
    data[at + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="a is encrypted"):
        extract(path, tmp_path / "out")
