"""The data certificate: its hash, what it is compared with, and where it is found again."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densekit.data.certificate import (
    CertifiedFile,
    certificate_path,
    certify,
    differences,
    known_root,
    merkle_root,
    read_certificate,
    write_certificate,
)
from densekit.data.doctor.examine import Request
from densekit.errors import DataError
from densekit.files.hashing import canonical_json
from tests.support.damaged_data import World

FULL = Request(depth="full")


def rfc6962(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + rfc6962(leaves[:k]) + rfc6962(leaves[k:])).digest()


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=3), max_size=40))
def test_the_root_is_that_of_rfc_6962(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == rfc6962(leaves).hex()


def _file(path: str, **changes: object) -> CertifiedFile:
    values = {"size": 3, "sha256": "a" * 64, "width": 2, "height": 1, "decodes": True}
    return CertifiedFile(path=path, **(values | changes))  # type: ignore[arg-type]


def test_the_root_covers_every_field_and_no_order() -> None:
    files = [_file("b"), _file("a")]
    root = certify("t.json", "0" * 64, files).root
    assert root == certify("u.json", "1" * 64, files[::-1]).root
    leaf = canonical_json(["a", 3, "a" * 64, 2, 1, True])
    assert certify("", "", [_file("a")]).root == hashlib.sha256(b"\0" + leaf).hexdigest()
    for changed in (
        _file("c"),
        _file("a", size=4),
        _file("a", sha256="b" * 64),
        _file("a", width=3),
        _file("a", height=None),
        _file("a", decodes=False),
    ):
        assert certify("", "", [_file("b"), changed]).root != root


def test_a_certificate_is_read_as_it_was_written_and_edits_show(tmp_path: Path) -> None:
    path = tmp_path / "deep/certificate.json"
    certificate = certify("t.json", "0" * 64, [_file("a"), _file("b")])
    write_certificate(path, certificate)
    assert read_certificate(path) == certificate
    path.write_text(path.read_text().replace('"a",3', '"a",4'))
    with pytest.raises(DataError, match="was edited"):
        read_certificate(path)
    path.write_text(json.dumps({"schema": 1}))
    with pytest.raises(DataError, match=r"certificate\.json: annotations: .*verify --full"):
        read_certificate(path)


def test_each_file_that_differs_is_named(world: World) -> None:
    certificate = world.examine(FULL).certificate
    assert certificate is not None and len(certificate.files) == 6
    assert len(certificate.root) == 64
    world.image(0).write_bytes(world.image(1).read_bytes())
    world.image(4).unlink()
    world.entries.append({**world.entries[5], "id": "n", "image": "b/9.jpg"})
    (world.folder / "b/9.jpg").write_bytes(world.image(5).read_bytes())
    kept = certificate_path(world.cache, certificate.annotations_sha256, world.folder)
    found = world.examine(Request(depth="full", against=kept))
    named = {kind: place for kind, place, _ in found.findings if kind.startswith("certificate")}
    assert named == {
        "certificate_differs": "a/0.jpg",
        "certificate_missing": "b/4.jpg",
        "certificate_new": "b/9.jpg",
    }
    detail = next(detail for kind, _, detail in found.findings if kind == "certificate_differs")
    assert "sha256" in detail and " -> " in detail
    assert read_certificate(kept) == certificate, "an earlier certificate stays"


def test_a_different_certificate_is_kept_beside_the_earlier_one(world: World) -> None:
    first = world.examine(FULL)
    assert first.certificate is not None and first.certificate_file is not None
    assert world.examine(FULL).certificate_file == first.certificate_file
    world.image(0).write_bytes(world.image(1).read_bytes())
    second = world.examine(FULL)
    assert second.errors == 1 and second.certificate_file is not None
    assert second.certificate_file.name == first.certificate_file.stem + ".new.json"
    root = known_root(world.cache, first.certificate.annotations_sha256, world.folder)
    assert root == first.certificate.root != second.certificate.root
    second.certificate_file.replace(first.certificate_file)
    assert world.examine(FULL).errors == 0


def test_unknown_or_damaged_certificates(world: World, tmp_path: Path) -> None:
    certificate = world.examine(FULL).certificate
    assert certificate is not None
    assert known_root(tmp_path / "other", certificate.annotations_sha256, world.folder) is None
    assert known_root(world.cache, "0" * 64, world.folder) is None
    kept = certificate_path(world.cache, certificate.annotations_sha256, world.folder)
    kept.write_text("{}")
    assert known_root(world.cache, certificate.annotations_sha256, world.folder) is None
    assert [kind for kind, *_ in world.examine(FULL).findings] == ["certificate_file"]


def test_equal_certificates_have_no_differences(world: World) -> None:
    one, two = world.examine(FULL).certificate, world.examine(FULL).certificate
    assert one is not None and two is not None and list(differences(one, two)) == []


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
