"""Rows of parquet files with image bytes, as the hub has them, and their images as files."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from densekit.data.decoding import read_header, reason
from densekit.errors import DataError
from densekit.files.regular import open_regular
from densekit.files.whole import written_whole

ROWS = 64
"""Of a file, decoded at a time: rows hold images."""
EXTENSIONS = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}
"""Of formats whose extension is another than their name."""
Row = Mapping[str, Any]


def rows_of(path: Path, columns: Sequence[str], *, any_of: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a file, with those of `columns` that it has.

    Raises DataError for a file that is damaged, and for one without any column of `any_of`.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        open_regular(path).close()
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            there = file.schema_arrow.names
            if any_of and not {*any_of} & {*there}:
                missing = " or ".join(f"`{name}`" for name in any_of)
                raise DataError(f"{path} has no column {missing}; it has {', '.join(there)[:200]}")
            kept = [column for column in columns if column in there]
            for batch in file.iter_batches(batch_size=ROWS, columns=kept):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read as parquet ({str(error)[:200]}); download it again"
        ) from None


def one_image(row: Row) -> bytes | str | None:
    """The bytes of a row's image, or its path where it has no bytes. Raises DataError for more than
    one image, and for one of 0 bytes.
    """
    found, other = row.get("image"), row.get("images")
    if found is not None and other and other not in (found, [found]):
        raise DataError("both `image` and `images`; remove the column that is not meant")
    found = other if found is None else found
    if isinstance(found, list):
        if len(found) > 1:
            raise DataError(f"{len(found)} images; one image per sample is supported")
        found = found[0] if found else None
    if isinstance(found, Mapping):
        data = found.get("bytes")
        found = found.get("path") if data is None else data
    if found == b"":
        raise DataError("its image is empty (0 bytes)")
    if found is None or isinstance(found, bytes | str):
        return found
    raise DataError(f"its image is a {type(found).__name__}; bytes or a path is read")


def write_image(name: str, data: bytes, folder: Path) -> str:
    """Write an image below `folder`, and return its name with the extension of what it is. Raises
    DataError for bytes that are no image.
    """
    try:
        kind = read_header(io.BytesIO(data)).format
    except Exception as error:  # decoders raise whatever they like
        raise DataError(f"its image cannot be read ({reason(error)})") from None
    name += EXTENSIONS.get(kind, f".{kind.lower()}")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        temporary.write_bytes(data)
    return name
