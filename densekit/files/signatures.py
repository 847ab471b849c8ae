"""What a file is by its first bytes, where something else is due: what downloads and half-finished
checkouts leave in the place of files.
"""

from dataclasses import dataclass
from typing import Literal

START = 4096
"""Bytes of a file's beginning that are enough."""

SignatureKind = Literal[
    "web_page",
    "lfs_pointer",
    "server_message",
    "archive",
    "document",
    "media",
    "image",
    "zero_filled",
    "text_file",
]


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a file is."""

    kind: SignatureKind
    what: str
    """In words, with its article."""


_STARTS: tuple[tuple[bytes, SignatureKind, str], ...] = (
    (b"version https://git-lfs", "lfs_pointer", "a pointer of Git LFS"),
    (b"<!doctype html", "web_page", "a web page"),
    (b"<html", "web_page", "a web page"),
    (b"<head", "web_page", "a web page"),
    (b"<svg", "document", "an SVG drawing"),
    (b"<?xml", "server_message", "an XML message"),
    (b"<error", "server_message", "an XML message"),
    (b"{", "server_message", "a JSON message"),
    (b"%pdf", "document", "a PDF document"),
    (b"%!ps", "document", "a PostScript document"),
    (b"pk\x03\x04", "archive", "a zip archive"),
    (b"pk\x05\x06", "archive", "an empty zip archive"),
    (b"\x1f\x8b", "archive", "a gzip file"),
    (b"bzh", "archive", "a bzip2 file"),
    (b"\xfd7zxz", "archive", "an xz file"),
    (b"(\xb5/\xfd", "archive", "a zstd file"),
    (b"7z\xbc\xaf", "archive", "a 7z archive"),
    (b"rar!", "archive", "a RAR archive"),
    (b"par1", "archive", "a parquet file"),
    (b"\x1a\x45\xdf\xa3", "media", "a video (Matroska)"),
    (b"id3", "media", "a sound file"),
    (b"oggs", "media", "an Ogg file"),
)
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"jxl ": "JPEG XL"}
"""Of files of the ISO base media format that are images."""


def signature(start: bytes) -> Signature | None:
    """What a file is that starts with these bytes; None where that cannot be said."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").lower()
    for sign, kind, what in _STARTS:
        if text.startswith(sign):
            if kind == "server_message" and b"<svg" in text:
                return Signature(kind="document", what="an SVG drawing")
            return Signature(kind=kind, what=what)
    if start[4:8] == b"ftyp":
        brand = _BRANDS.get(start[8:12].lower())
        if brand:
            return Signature(kind="image", what=f"a {brand} image")
        return Signature(kind="media", what="a video (MP4)")
    if start[:4] == b"RIFF" and start[8:12] in (b"AVI ", b"WAVE"):
        return Signature(kind="media", what="a video or sound file (RIFF)")
    if start[:2] == b"\xff\x0a":
        return Signature(kind="image", what="a JPEG XL image")
    if start[257:262] == b"ustar":
        return Signature(kind="archive", what="a tar archive")
    if start and not start.strip(b"\0"):
        return Signature(kind="zero_filled", what="zeros")
    if _is_text(start):
        return Signature(kind="text_file", what="text")
    return None


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4 or error.start == 0:  # not merely cut inside a letter
            return False
        text = start[: error.start].decode("utf-8")
    return bool(text) and all(letter.isprintable() or letter in "\t\r\n" for letter in text)
