"""Files of a run directory that say which schema they have."""

from pathlib import Path
from typing import TypeVar

from densekit.errors import DataError
from densekit.files.json_files import read_object
from densekit.spec.part import Part, read_part

P = TypeVar("P", bound=Part)


def read_versioned(kind: type[P], path: Path, *, schema: int, what: str, remedy: str) -> P:
    """What a JSON file of this `schema` holds.

    Raises DataError for another schema (`what`, such as "the run", names what was made with it),
    and for a file that densekit did not write; it ends in `remedy`.
    """
    value = read_object(path, "schema", remedy=remedy)
    if value["schema"] != schema:
        raise DataError(
            f"{path} has schema {value['schema']}; this version reads {schema}: use the version of "
            f"densekit that made {what}"
        )
    return read_part(kind, value, source=path, remedy=remedy)
