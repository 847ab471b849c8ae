"""`densekit publish`: export a run through a launcher, write its card, upload the folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from densekit.errors import DataError
from densekit.exchange.publish.card import CARD, check_card, model_card
from densekit.exchange.publish.leaks import check_leaks
from densekit.exchange.publish.record import (
    PUBLICATION,
    is_prepared,
    published_files,
    write_publication,
    write_records,
)
from densekit.exchange.publish.repository import Target, check_name, open_target
from densekit.exchange.publish.subject import Subject, read_subject
from densekit.files.permissions import follow_umask
from densekit.launch.exchange import export_model
from densekit.launch.launchers.base import Launcher
from densekit.spec.exchange import ExportRequest
from densekit.spec.math import Math
from densekit.spec.roots import Roots
from densekit.spec.types import Dtype, PublishFormat

FOLDER = Path("published")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class PublishRequest:
    """What is published, where, and how."""

    run: Path
    to: str
    """ORG/NAME on the hub."""
    roots: Roots
    folder: Path | None = None
    """Where it is put together; None: published/ORG--NAME."""
    format: PublishFormat | None = None
    """None: llava-hf, and densekit for what stock transformers cannot express."""
    dtype: Dtype | None = None
    license: str | None = None
    """The hub's name of it; None: that of the language model."""
    private: bool = False
    dry_run: bool = False


def publish(request: PublishRequest, launcher: Launcher, *, say: Say) -> list[str]:
    """Publish a run; returns what was done, in lines, and `say`s what it is about to do.

    Raises UsageError for a run or a name that cannot be published, DataError where the hub does not
    take it or the card would give away where it was trained. A dry run asks the hub nothing.
    """
    check_name(request.to)
    subject = read_subject(request.run)
    target = None if request.dry_run else open_target(request.to)
    folder = request.folder or FOLDER / request.to.replace("/", "--")
    format_ = request.format or usual_format(subject.math.recipe)
    lines = []
    if is_prepared(subject, folder, card=CARD, format_=format_, dtype=request.dtype):
        lines.append(f"{folder}: as an earlier call left it")
    else:
        lines += _prepare(request, subject, folder, format_, launcher, say)
    check_card((folder / CARD).read_text(encoding="utf-8"), folder / CARD)
    check_leaks(folder, name=request.to)
    if target is None:
        return [*lines, f"{folder / CARD}: valid as far as it can be told without the hub"]
    return [*lines, _upload(target, folder, subject, request.private, say)]


def usual_format(math: Math) -> PublishFormat:
    """That of stock transformers, where its Llava or LlavaNext computes the same."""
    connector, anyres = math.connector, math.data.anyres
    stock = (
        connector.is_grid
        and connector.reduce_tokens == "none"
        and connector.learned is None
        and connector.mining is None
        and (anyres is None or anyres.merge == "spatial_unpad")
    )
    return "llava-hf" if stock else "densekit"


def _prepare(
    request: PublishRequest,
    subject: Subject,
    folder: Path,
    format_: PublishFormat,
    launcher: Launcher,
    say: Say,
) -> list[str]:
    """The folder, with everything that is uploaded."""
    say(f"exporting {request.run} to {folder} ({format_})")
    asked = ExportRequest(
        source=request.run,
        to=folder,
        format=format_,
        merge_lora=subject.math.recipe.lora is not None,
        dtype=request.dtype,
        roots=request.roots,
    )
    lines = export_model(asked, launcher)
    try:
        write_records(subject, folder)
        files = published_files(folder, besides=(CARD, PUBLICATION))
        card = model_card(
            subject,
            name=request.to,
            format_=format_,
            dtype=request.dtype,
            license_=request.license,
            files=files,
        )
        (folder / CARD).write_text(card, encoding="utf-8")
        write_publication(subject, folder, format_=format_, dtype=request.dtype, files=files)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror}") from None
    follow_umask(folder)
    return [*lines, f"{folder / CARD}: the card; edit it before the upload if you like"]


def _upload(target: Target, folder: Path, subject: Subject, private: bool, say: Say) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    say(f"uploading {size / 1e9:.2f} GB to {target.page}")
    message = f"Publish {subject.math.recipe.name} ({subject.math.sha256[:10]}) with densekit"
    return f"published: {target.upload(folder, message=message, private=private)}"
