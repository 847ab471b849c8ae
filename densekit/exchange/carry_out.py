"""What the process that launchers start does: one import, export or conversion of a connector, told
in lines.
"""

from collections.abc import Callable, Iterator

from transformers.utils import logging

from densekit.exchange.connector import convert_connector
from densekit.exchange.export.exporting import export_model
from densekit.exchange.official.importing import import_folder
from densekit.spec.exchange import ConnectorRequest, ExchangeReport, ExchangeRequest
from densekit.spec.imported import Imported, ImportRequest

TRAINED = {"connector": "a connector", "full": "a full model", "lora": "LoRA adapters"}


def carry_out(request: ExchangeRequest, *, say: Callable[[str], None]) -> ExchangeReport:
    """Import, export or convert. Raises UsageError or DataError as these do."""
    logging.disable_progress_bar()
    if request.export is not None:
        return ExchangeReport(lines=tuple(export_model(request.export, say=say)))
    if request.connector is not None:
        return ExchangeReport(lines=tuple(_converted(request.connector)))
    assert request.import_ is not None
    record = import_folder(request.import_, say=say)
    return ExchangeReport(lines=tuple(_imported(request.import_, record)))


def _converted(request: ConnectorRequest) -> Iterator[str]:
    record = convert_connector(request)
    (saved,) = record.originals.values()
    yield (
        f"{request.file}: {record.tensors} tensors converted into {request.to}, from SHA-256 "
        f"{saved.sha256[:16]}..."
    )


def _imported(request: ImportRequest, record: Imported) -> Iterator[str]:
    size = sum(file.bytes for file in record.files.values())
    yield (
        f"{request.to}: {TRAINED[record.trains]}, connector {record.connector.kind}, template "
        f"{record.template}, {size / 1e9:.2f} GB in {len(record.files)} files"
    )
    if record.base is not None:
        yield f"language model: {record.base.folder}"
    tower = record.tower.folder if record.tower else f"{request.to}/vision_tower"
    yield f"vision tower: {tower}"
    yield from (f"not kept: {number} {kind}" for kind, number in record.left_out.items())
    yield from (f"note: {note}" for note in record.notes)
