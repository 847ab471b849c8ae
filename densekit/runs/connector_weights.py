"""The weights that `models.connector` names: a file of densekit's own, or one of the official code
or of LLaVA, which is converted into the cache before a run is made.

A conversion lies in a folder that is named by the SHA-256 of what it was made from, so that another
file at the same path is another conversion.
"""

from pathlib import Path

from densekit.errors import DataError
from densekit.files.hashing import file_sha256
from densekit.files.safetensors_header import read_header
from densekit.runs.layout import CONNECTOR_FILE

FOLDER = "connectors"
OFFICIAL = "mm_projector."
"""What is in the names of the official code's tensors, before our own."""


def conversion_folder(path: Path, cache: Path) -> Path | None:
    """Where the conversion of a file is, or would be; None for one that is read as it is.

    Raises DataError for a file that cannot be read.
    """
    if path.suffix == ".safetensors" and not any(OFFICIAL in name for name in read_header(path)):
        return None
    return cache.resolve() / FOLDER / file_sha256(path)


def connector_weights(path: Path, cache: Path) -> Path:
    """The safetensors file with the projector's own names. Raises DataError where the conversion is
    not there.
    """
    if not path.is_file():
        return path  # whoever reads it says so
    folder = conversion_folder(path, cache)
    if folder is None:
        return path
    converted = folder / CONNECTOR_FILE
    if not converted.is_file():
        raise DataError(
            f"{path} is in the official code's format, and {converted} is not there: `densekit "
            "run` makes it before it trains; start the run with it"
        )
    return converted
