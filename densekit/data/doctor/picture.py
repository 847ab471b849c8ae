"""One image file: what it is, whether it decodes, and everything that is odd about it."""

import errno
import hashlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from densekit.data.decoding import ImageHeader, decode, read_header, reason
from densekit.data.pixels import MAX_BYTES
from densekit.errors import DataError
from densekit.files.signatures import START, signature

Odd = tuple[str, str]
"""(name of a kind of finding, detail in words)."""

EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
}
"""What names of these formats end in; other formats are not compared with their names."""
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
"""How whole files of a format end, padding aside."""
LARGE = 16_384
TINY = 8
EXTREME = 20
"""Of an edge in pixels, and of the long edge to the short one."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What was found about an image file; what is None was not read, or could not be."""

    size: int
    """Bytes, by the folder's listing."""
    mtime_ns: int
    format: str | None = None
    mode: str | None = None
    width: int | None = None
    height: int | None = None
    decodes: bool | None = None
    """Whether all of its pixels can be read; None: that was not tried."""
    sha256: str | None = None
    """None where only the header was read."""
    odd: tuple[Odd, ...] = ()

    def as_json(self) -> list[Any]:
        """Its fields in their order."""
        return [getattr(self, name) for name in self.__dataclass_fields__]

    @classmethod
    def from_json(cls, values: list[Any]) -> "Picture":
        """What as_json gave. Raises ValueError or TypeError for anything else."""
        names = list(cls.__dataclass_fields__)
        fields = dict(zip(names, values, strict=True))
        odd = tuple((str(kind), str(detail)) for kind, detail in fields.pop("odd"))
        return cls(odd=odd, **fields)


def look(path: Path, *, size: int, mtime_ns: int, full: bool) -> Picture:
    """Examine one file: its header, and with `full` every pixel and the hash of its bytes.

    `size`, `mtime_ns`: of the folder's listing. Raises nothing: what goes wrong is a finding.
    """
    known: dict[str, Any] = {"size": size, "mtime_ns": mtime_ns}
    if size == 0:
        digest = hashlib.sha256(b"").hexdigest() if full else None
        return Picture(**known, decodes=False, sha256=digest, odd=(("empty_image", ""),))
    try:
        # Without blocking: a FIFO that replaced the file meanwhile would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            if not full:
                return _by_header(file, path.name, known)
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        detail = error.strerror or str(error)
        return Picture(**known, decodes=False, odd=(("unreadable_image", detail),))
    known["sha256"] = hashlib.sha256(data).hexdigest()
    if len(data) > MAX_BYTES:
        detail = f"larger than {MAX_BYTES >> 20} MiB"
        return Picture(**known, decodes=False, odd=(("undecodable", detail),))
    found = _by_header(io.BytesIO(data), path.name, known)
    if found.format is None:
        return found
    return _decoded(found, data)


def _by_header(file: Any, name: str, known: dict[str, Any]) -> Picture:
    try:
        header = read_header(file)
    except Exception as error:  # decoders raise whatever they like
        return Picture(**known, decodes=False, odd=(_instead(file, error),))
    return Picture(
        **known,
        format=header.format,
        mode=header.mode,
        width=header.width,
        height=header.height,
        odd=tuple(_oddities(header, name)),
    )


def _instead(file: Any, error: Exception) -> Odd:
    """What a file is that is no image that can be read."""
    if isinstance(error, Image.DecompressionBombError):
        return "too_many_pixels", str(error).partition(",")[0]
    try:
        file.seek(0)
        start = file.read(START)
    except OSError as failed:
        return "unreadable_image", failed.strerror or str(failed)
    found = signature(start)
    if found is None:
        why = reason(error)
        kind = "truncated" if "truncated" in why.lower() else "undecodable"
        return ("not_an_image" if "not an image" in why else kind), why
    return ("format_not_read" if found.kind == "image" else found.kind), found.what


def _oddities(header: ImageHeader, name: str) -> list[Odd]:
    size = f"{header.width} x {header.height}"
    short, long = sorted((header.width, header.height))
    suffix = PurePosixPath(name).suffix.lower()
    endings = EXTENSIONS.get(header.format)
    found: list[Odd] = []
    if endings and suffix not in endings:
        found.append(("wrong_extension", f"{header.format} named {suffix or 'without extension'}"))
    if header.animated and header.format != "MPO":
        found.append(("animated", header.format))
    if header.mode == "CMYK":
        found.append(("cmyk", ""))
    if header.deep:
        found.append(("deep", f"mode {header.mode}"))
    if header.orientation != 1:
        found.append(("rotated", f"EXIF orientation {header.orientation}"))
    if header.mode in ("P", "PA"):
        found.append(("palette", ""))
    if header.alpha:
        found.append(("alpha", f"mode {header.mode}"))
    if long > LARGE:
        gigabytes = 3 * long**2 / 1e9
        found.append(("very_large", f"{size}: the square takes {gigabytes:.1f} GB of host RAM"))
    if long > EXTREME * short:
        found.append(("extreme_shape", size))
    if short < TINY:
        found.append(("tiny", size))
    return found


def _decoded(found: Picture, data: bytes) -> Picture:
    """The same once its pixels were read."""
    odd = list(found.odd)
    try:
        image, _ = decode(data, "")
    except DataError as error:
        detail = str(error).partition("(")[2].rpartition(")")[0]
        end = ENDS.get(found.format or "")
        cut = "truncated" in detail or (end is not None and end not in data[-64:])
        return _with(
            found, decodes=False, odd=(*odd, ("truncated" if cut else "undecodable", detail))
        )
    extrema: Any = image.getextrema()  # a pair for each of three channels
    if all(low == high for low, high in extrema):
        odd.append(("single_colour", f"{image.size[0]} x {image.size[1]}"))
    return _with(found, decodes=True, odd=tuple(odd))


def _with(found: Picture, *, decodes: bool, odd: tuple[Odd, ...]) -> Picture:
    fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
    return Picture(**(fields | {"decodes": decodes, "odd": odd}))
