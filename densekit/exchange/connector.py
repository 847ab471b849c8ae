"""A projector of the official code or of LLaVA (mm_projector.bin) into one of densekit's:
`convert_connector`.

    connector.safetensors      0.weight, 0.bias, 2.weight, 2.bias, in the type they were saved in
    conversion.json            hashes of what was read and written (spec/conversion.py)
"""

from pathlib import Path

import torch

from densekit.exchange.new_folder import new_folder
from densekit.exchange.official.folder import read_connector
from densekit.exchange.weight_file import check_finite
from densekit.files.hashing import file_sha256
from densekit.files.json_files import write_json
from densekit.files.pickle_files import CONVERSION
from densekit.model.tensor_files import write_tensors
from densekit.runs.layout import CONNECTOR_FILE
from densekit.spec.conversion import Conversion
from densekit.spec.exchange import ConnectorRequest
from densekit.spec.saved_file import SavedFile


def convert_connector(request: ConnectorRequest) -> Conversion:
    """Convert one file. Raises UsageError for one that is not there, DataError for one that holds
    no projector of two layers, or needs code to be read. Nothing half-written stays.
    """
    file, stored = read_connector(request.file)
    read = file.read(stored)
    check_finite(read, file.path)
    tensors = {stored[name].name: value for name, value in read.items()}
    first = next(iter(stored))
    prefix = first.removesuffix(stored[first].name)
    with new_folder(request.to) as stage:
        path = stage / CONNECTOR_FILE
        write_tensors(tensors, path, metadata={"format": "pt"})
        record = Conversion(
            originals={request.file.name: _saved(request.file)},
            files={CONNECTOR_FILE: _saved(path)},
            tensors=len(tensors),
            renamed={request.file.name: prefix} if prefix else {},
            torch=torch.__version__,
        )
        write_json(stage / CONVERSION, record.as_json())
    return record


def _saved(path: Path) -> SavedFile:
    return SavedFile(sha256=file_sha256(path), bytes=path.stat().st_size)
