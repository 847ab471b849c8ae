"""The process that converts weights: who starts it, what a container sees, what its end means."""

import json
from pathlib import Path
from typing import Any

import pytest

from densekit.errors import DataError, UsageError
from densekit.files.json_files import write_json
from densekit.launch import conversion
from densekit.launch.conversion import convert, converter, read_request
from densekit.launch.launchers import conversion as process
from densekit.launch.launchers.conversion import convert_here, made
from densekit.launch.launchers.docker.container import conversion_container, exchange_container
from densekit.launch.launchers.docker.launcher import Docker
from densekit.launch.launchers.local import Local
from densekit.launch.launchers.options import LauncherOptions
from densekit.spec.connector import Connector
from densekit.spec.conversion import Conversion, ConversionReport, ConversionRequest
from densekit.spec.exchange import ExchangeRequest, ExportRequest
from densekit.spec.execution import Execution
from densekit.spec.imported import Imported
from densekit.spec.saved_file import SavedFile
from densekit.spec.site import Site

HASH = "0" * 64
REPORT = ConversionReport(
    conversion=Conversion(
        originals={"pytorch_model.bin": SavedFile(sha256=HASH, bytes=10)},
        files={"model.safetensors": SavedFile(sha256=HASH, bytes=2_000_000_000)},
        tensors=291,
        tied={"lm_head.weight": "model.embed_tokens.weight"},
        left_out={"pytorch_model.bin": ("epoch",)},
        torch="2.8.0",
    ),
    already=False,
)


class Recording(Local):
    """Notes the request."""

    def convert(self, request: ConversionRequest, execution: Execution) -> ConversionReport:
        self.request = request
        return REPORT


def test_what_was_done_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    launcher = Recording()
    monkeypatch.chdir(tmp_path)
    lines = convert(Path("link"), Path("new"), launcher)
    assert launcher.request == ConversionRequest(folder=tmp_path / "real", to=tmp_path / "new")
    assert lines == [
        "new: 291 tensors of 1 pickle in 1 file, 2.00 GB",
        "lm_head.weight is kept once, as model.embed_tokens.weight",
        "pytorch_model.bin holds no weights in epoch, which were left out",
    ]
    with pytest.raises(UsageError, match="none is not a folder"):
        convert(Path("none"), None, launcher)
    assert read_request(launcher.request.model_dump_json()) == launcher.request
    with pytest.raises(UsageError, match="takes a folder as JSON"):
        read_request("{}")


def test_the_packages_decide_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "missing_packages", list)
    assert isinstance(converter(None, LauncherOptions(), Site()), Local)
    asked = converter(None, LauncherOptions(image="mine"), Site())
    assert isinstance(asked, Docker) and asked.image == "mine"
    with pytest.raises(UsageError, match="--image: the local launcher does not take it"):
        converter("local", LauncherOptions(image="mine"), Site())
    monkeypatch.setattr(conversion, "missing_packages", lambda: ["torch"])
    assert isinstance(converter(None, LauncherOptions(), Site()), Docker)
    monkeypatch.setattr(process, "missing_packages", lambda: ["torch"])
    with pytest.raises(UsageError, match=r"^torch not installed: .* or use --launcher docker"):
        convert_here(ConversionRequest(folder=Path("x")))


def test_a_container_writes_to_one_folder_and_reads_what_it_links_to(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / "1").touch()
    (snapshot / "pytorch_model.bin").symlink_to("../../blobs/1")
    target = tmp_path / "new"
    for to, mounts in (
        (target, {blobs: True, target: False, snapshot: True}),
        (None, {blobs: True, snapshot: False}),
    ):
        request = ConversionRequest(folder=snapshot, to=to)
        made_of = conversion_container(request, image="i", user="1:1")
        assert {mount.path: mount.read_only for mount in made_of.mounts} == mounts
        assert made_of.command[:4] == ["python", "-m", "densekit", "convert-folder"]
        assert not made_of.devices and json.loads(made_of.command[4])["folder"] == str(snapshot)


def test_a_container_sees_the_models_that_an_import_names(tmp_path: Path) -> None:
    imported, base, tower = (tmp_path / name for name in ("imported", "base", "tower"))
    for folder in (imported, base, tower):
        folder.mkdir()
    hashed = {"x": {"sha256": "0" * 64, "bytes": 1}}
    record = Imported(
        trains="connector",
        connector=Connector(kind="none"),
        template="v1",
        image_aspect_ratio="pad",
        max_length=9,
        vocabulary=9,
        language_model=str(base),
        vision_tower=str(tower),
        tokenizer=str(base),
        base=None,
        tower=None,
        source="x",
        read=hashed,
        files=hashed,
    )
    write_json(imported / "import.json", record.as_json())
    asked = ExportRequest(source=imported, to=tmp_path / "to", format="official")
    mounts = exchange_container(ExchangeRequest(export=asked), image="i", user="1:1").mounts
    found = {mount.path: mount.read_only for mount in mounts}
    assert (
        found.items() >= {imported: True, base: True, tower: True, tmp_path / "to": False}.items()
    )


@pytest.mark.parametrize(
    ("code", "out", "errors", "kind", "message"),
    [
        (
            3,
            b"",
            b"a\ndensekit: x.bin is empty: download\n",
            DataError,
            "^x.bin is empty: download$",
        ),
        (2, b"", b"densekit: --to x is a file\n", UsageError, "^--to x is a file$"),
        (-9, b"", b"", DataError, r"could not be converted: exit code -9 \(it was killed: out"),
        (1, b"", b"Traceback\nImportError: y\n", DataError, "converted: ImportError: y$"),
        (0, b"?", b"", DataError, "could not be converted: exit code 0"),
        (0, b"{}", b"", DataError, "conversion: Field required"),
    ],
)
def test_an_end_is_told_in_one_sentence(
    code: int, out: bytes, errors: bytes, kind: Any, message: str
) -> None:
    with pytest.raises(kind, match=message):
        made(code, out, errors)


def test_a_report_is_read() -> None:
    assert made(0, REPORT.model_dump_json(by_alias=True).encode(), b"") == REPORT
