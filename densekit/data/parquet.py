"""A folder of parquet files with image bytes, as the hub has them, unpacked: an annotation file in
LLaVA's form and a folder of images.

A row has a conversation (`conversations` or `messages`, in any form of densekit.data.entries), an
image (`image`, or `images` of one: {"bytes", "path"}, bytes, or a path) or none, and an `id` or
none; other columns are left out, but for those that other programs learn from, which are refused
(densekit.data.entries). Images keep their bytes: `<file>/<row>` with the extension of what
they are.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densekit.data.entries import NOT_READ, read_conversation
from densekit.data.parquet_rows import Row, one_image, rows_of, write_image
from densekit.errors import DataError, UsageError
from densekit.files.whole import written_whole

ANNOTATIONS = "annotations.json"
IMAGES = "images"
NAMED = 10
"""Of the rows that are refused, so many are named."""
PROGRESS_EVERY = 20_000
COLUMNS = ("id", "image", "images", "conversations", "messages", *NOT_READ)


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What was written."""

    annotations: Path
    entries: int
    images: int
    """Whose bytes were in the files, and were written."""
    elsewhere: int
    """Images that rows name by a path, and whose bytes the files do not have."""


def unpack(source: Path, target: Path) -> Unpacked:
    """Unpack the parquet files of a folder, or one file, in the order of their names.

    Every row is looked at before the annotation file appears, and it appears whole. Running it
    again writes the same. Raises DataError naming file and row of what is refused, and how many
    more are; UsageError where there is no parquet file, or `target` is a file.
    """
    files = [source] if source.is_file() else sorted(source.rglob("*.parquet"))
    if not source.exists():
        raise UsageError(f"{source} is missing; give a folder of parquet files, or one")
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file; give a folder to put {ANNOTATIONS} and {IMAGES}/ in")
    if not files:
        raise UsageError(f"{source} holds no .parquet file; give the folder that holds them")
    refused: list[str] = []
    entries = images = elsewhere = 0
    target.mkdir(parents=True, exist_ok=True)
    with written_whole(target / ANNOTATIONS, flush=True) as temporary:
        with temporary.open("w", encoding="ascii") as out:
            for place, row in _rows(source, files):
                try:
                    entry, written = _entry(place, row, target / IMAGES)
                except DataError as error:
                    refused.append(f"{place}: {error}")
                    continue
                images += written
                elsewhere += "image" in entry and not written
                out.write(f"{',' if entries else '['}\n{json.dumps(entry)}")
                entries += 1
                if entries % PROGRESS_EVERY == 0:
                    print(f"{source}: {entries} rows unpacked", file=sys.stderr)
            out.write("\n]\n")
        if refused:
            raise DataError(_refused(source, refused))
        if not entries:
            raise DataError(f"{source}: its parquet files have no rows; download them again")
    return Unpacked(
        annotations=target / ANNOTATIONS, entries=entries, images=images, elsewhere=elsewhere
    )


def _rows(source: Path, files: list[Path]) -> Iterator[tuple[str, Row]]:
    """(place, row) of every row; the place is the file's name without its ending, and the row."""
    for path in files:
        name = path.name if path == source else path.relative_to(source).as_posix()
        rows = rows_of(path, COLUMNS, any_of=("conversations", "messages"))
        for number, row in enumerate(rows):
            yield f"{name.removesuffix('.parquet')}/{number:08d}", row


def _entry(place: str, row: Row, images: Path) -> tuple[dict[str, Any], bool]:
    """The entry of a row in LLaVA's form, and whether its image was there and is written."""
    image = one_image(row)
    named = {name: row[name] for name in ("conversations", "messages", *NOT_READ) if row.get(name)}
    if image is not None:
        named["image"] = image if isinstance(image, str) else place
    conversation = read_conversation(_without_nulls(named))
    entry: dict[str, Any] = {"id": str(row["id"]) if row.get("id") is not None else place}
    if isinstance(image, bytes):
        entry["image"] = write_image(place, image, images)
    elif conversation.image is not None:
        entry["image"] = conversation.image
    return entry | {"conversations": conversation.as_turns()}, isinstance(image, bytes)


def _without_nulls(value: Any) -> Any:
    """Without the fields that other rows have: a column has one type for all of its rows."""
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value


def _refused(source: Path, refused: list[str]) -> str:
    more = len(refused) - NAMED
    named = "\n".join(f"  - {line}" for line in refused[:NAMED])
    others = f"\n  - and {more} more" if more > 0 else ""
    if len(refused) == 1:
        return f"{source}: 1 row is refused; correct it, or leave it out:\n{named}"
    rows = f"{len(refused)} rows are refused"
    return f"{source}: {rows}; correct them, or leave them out:\n{named}{others}"
