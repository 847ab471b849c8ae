"""Dossiers: what is in one, that any changed byte shows, what is refused."""

import io
import json
import os
import random
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from rocrate.rocrate import ROCrate

from densekit.audit.dossier import archive
from densekit.audit.dossier.archive import MARK, write_archive
from densekit.audit.dossier.check import verify_dossier
from densekit.audit.dossier.pack import pack
from densekit.errors import DataError, UsageError
from densekit.files.hashing import sealed
from densekit.files.json_files import read_json, write_json
from densekit.spec.check import Check
from tests.support.audit import edit_line
from tests.support.evaluations import answered
from tests.support.paths import ROOT
from tests.support.runs import make_world, train

FLIPS = 60


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run; no test changes it."""
    return train(make_world(tmp_path_factory.mktemp("world")), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def packed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its dossier; no test changes it."""
    to = tmp_path_factory.mktemp("dossier") / "made.zip"
    pack([run], to)
    return to


def failed(checks: list[Check]) -> list[str]:
    """Messages of the checks that failed."""
    return [check.message for check in checks if check.state == "fail"]


def repack(source: Path, to: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Another archive with a hash that fits, as a forger would make it."""
    with zipfile.ZipFile(source) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    change(files)
    write_archive(to, files)
    return to


def test_a_dossier_verifies_without_its_run(run: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(run, tmp_path / "gone" / run.name))
    pack([moved], tmp_path / "made.zip")
    shutil.rmtree(moved)
    checks = verify_dossier(tmp_path / "made.zip")
    assert not failed(checks)
    messages = " ".join(check.message for check in checks)
    assert "made: 6 steps fit their hash chain" in messages
    assert "of the trained model, 1 file stayed behind" in messages


def test_it_holds_records_and_no_weights(run: Path, packed: Path) -> None:
    names = zipfile.ZipFile(packed).namelist()
    for name in ("math.json", "manifest.json", "metrics.jsonl", "feed.jsonl", "report.html"):
        assert f"runs/{run.name}/{name}" in names
    assert f"runs/{run.name}/sbom.cdx.json" in names
    assert "CITATION.cff" in names
    assert not [name for name in names if name.endswith(".safetensors")]


def test_it_is_an_ro_crate(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as opened:
        opened.extractall(tmp_path)
        names = set(opened.namelist()) - {"ro-crate-metadata.json"}
    crate = ROCrate(tmp_path)
    assert crate.root_dataset["license"].id.endswith("Apache-2.0")
    assert crate.root_dataset["datePublished"]
    assert {part.id for part in crate.root_dataset["hasPart"]} == names
    action = crate.root_dataset["mentions"]
    assert action.type == "CreateAction" and action["instrument"].id == "#densekit"
    assert all((tmp_path / file.id).is_file() for file in action["result"])
    assert all(part["description"] for part in crate.root_dataset["hasPart"])


def test_packages_are_listed_as_cyclonedx(run: Path, packed: Path) -> None:
    listed = json.loads(zipfile.ZipFile(packed).read(f"runs/{run.name}/sbom.cdx.json"))
    assert listed["bomFormat"] == "CycloneDX"
    assert {part["purl"] for part in listed["components"]} >= {"pkg:pypi/torch@2.13.0"}


def test_any_flipped_byte_is_noticed(packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    draw = random.Random(0)
    places = {0, 10, len(data) - 1, len(data) - 65, len(data) - 80}
    places |= {draw.randrange(len(data)) for _ in range(FLIPS)}
    changed = tmp_path / "changed.zip"
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << draw.randrange(8)
        changed.write_bytes(damaged)
        assert failed(verify_dossier(changed)), place
    for cut in (1, 100, len(data) // 2, len(data)):
        changed.write_bytes(data[: len(data) - cut])
        assert failed(verify_dossier(changed)), cut


def test_a_forged_file_is_noticed(run: Path, packed: Path, tmp_path: Path) -> None:
    name = f"runs/{run.name}/results.json"

    def forge(files: dict[str, bytes]) -> None:
        files[name] = files[name].replace(b"0", b"1")

    (message,) = failed(verify_dossier(repack(packed, tmp_path / "a.zip", forge)))[:1]
    assert f"{name} was changed" in message


def test_a_forged_listing_leaves_the_runs_own_hashes(
    run: Path, packed: Path, tmp_path: Path
) -> None:
    import hashlib

    name = f"runs/{run.name}/metrics.jsonl"

    def forge(files: dict[str, bytes]) -> None:
        lines = files[name].splitlines()
        lines[2] = json.dumps({**json.loads(lines[2]), "loss": 0.001}).encode()
        files[name] = b"\n".join(lines) + b"\n"
        listing = json.loads(files["dossier.json"])
        for entry in listing["files"]:
            if entry["path"] == name:
                entry["sha256"] = hashlib.sha256(files[name]).hexdigest()
                entry["bytes"] = len(files[name])
        files["dossier.json"] = json.dumps(sealed(listing)).encode()

    found = " ".join(failed(verify_dossier(repack(packed, tmp_path / "a.zip", forge))))
    assert "does not fit the hash chain" in found
    assert "metrics.jsonl is not the file that the run recorded" in found


@pytest.mark.parametrize(("field", "value"), [("state", "running"), ("recipe", "another")])
def test_a_listing_that_says_other_things_of_a_run_is_noticed(
    packed: Path, tmp_path: Path, field: str, value: str
) -> None:
    def forge(files: dict[str, bytes]) -> None:
        listing = json.loads(files["dossier.json"])
        listing["runs"][0][field] = value
        files["dossier.json"] = json.dumps(sealed(listing)).encode()

    (message,) = failed(verify_dossier(repack(packed, tmp_path / "a.zip", forge)))
    assert "is of another recipe or state than dossier.json says" in message


@pytest.mark.parametrize("graph", [7, None, [7], [{"@id": ["./"]}], {}])
def test_metadata_of_any_shape_is_no_traceback(packed: Path, tmp_path: Path, graph: object) -> None:
    def forge(files: dict[str, bytes]) -> None:
        files["ro-crate-metadata.json"] = json.dumps({"@context": "", "@graph": graph}).encode()

    found = " ".join(failed(verify_dossier(repack(packed, tmp_path / "a.zip", forge))))
    assert "ro-crate-metadata.json does not describe" in found


def test_files_that_nobody_listed_and_lost_ones_are_noticed(packed: Path, tmp_path: Path) -> None:
    more = repack(packed, tmp_path / "a.zip", lambda files: files.update({"more.txt": b"x"}))
    assert "more.txt is not listed" in " ".join(failed(verify_dossier(more)))
    less = repack(packed, tmp_path / "b.zip", lambda files: files.pop("CITATION.cff"))
    assert "CITATION.cff is missing" in " ".join(failed(verify_dossier(less)))


def hostile(path: Path, *entries: tuple[zipfile.ZipInfo, bytes]) -> Path:
    """An archive of any entries that ends in its hash."""
    import hashlib

    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as opened:
        for info, data in entries:
            opened.writestr(info, data, compress_type=zipfile.ZIP_DEFLATED)
        opened.comment = MARK + b"0" * 64
    data = held.getvalue()[:-64]
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())
    return path


def link(name: str) -> zipfile.ZipInfo:
    """An entry that is a symbolic link."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([(zipfile.ZipInfo("../out.txt"), b"x")], "no path inside the dossier"),
        ([(zipfile.ZipInfo("/out.txt"), b"x")], "no path inside the dossier"),
        ([(zipfile.ZipInfo("a/../../out.txt"), b"x")], "no path inside the dossier"),
        ([(zipfile.ZipInfo("c:out.txt"), b"x")], "no path inside the dossier"),
        ([(zipfile.ZipInfo("a\\..\\out.txt"), b"x")], "no path inside the dossier"),
        ([(link("passwd"), b"/etc/passwd")], "no regular file"),
        ([(zipfile.ZipInfo("a/"), b"")], "no path inside the dossier"),
        ([(zipfile.ZipInfo("a"), b"x"), (zipfile.ZipInfo("a"), b"y")], "comes twice"),
        ([(zipfile.ZipInfo("a"), b"x"), (zipfile.ZipInfo("A"), b"y")], "comes twice"),
        ([(zipfile.ZipInfo("bomb"), bytes(20 << 20))], "would extract to"),
        ([(zipfile.ZipInfo("a"), b"x"), (zipfile.ZipInfo("a/b"), b"y")], "cannot be extracted"),
        ([(zipfile.ZipInfo("a"), b"x")], "dossier.json"),
    ],
)
def test_hostile_archives_are_refused(
    tmp_path: Path, entries: list[tuple[zipfile.ZipInfo, bytes]], problem: str
) -> None:
    (message,) = failed(verify_dossier(hostile(tmp_path / "a.zip", *entries)))
    assert problem in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILES", 2)
    entries = [(zipfile.ZipInfo(str(number)), b"x") for number in range(3)]
    assert "3 files" in failed(verify_dossier(hostile(tmp_path / "a.zip", *entries)))[0]


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip" * 100, MARK + b"0" * 64])
def test_what_is_no_dossier_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    assert len(failed(verify_dossier(tmp_path / "a.zip"))) == 1
    assert "cannot be read" in failed(verify_dossier(tmp_path / "none.zip"))[0]


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_dossier_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.zip")
    (check,) = verify_dossier(tmp_path / "a.zip")
    assert check.state == "fail" and "not a regular file" in check.message


def test_nothing_says_whose_machine_it_was(run: Path, packed: Path) -> None:
    opened = zipfile.ZipFile(packed)
    folders = {str(run.parent), str(read_json(run / "attempts/0001/execution.json")["roots"])}
    for name in opened.namelist():
        text = opened.read(name).decode()
        assert not [folder for folder in folders if folder in text], name
    listing = json.loads(opened.read("dossier.json"))
    changed = {entry["path"] for entry in listing["files"] if entry["original_sha256"]}
    assert {Path(path).name for path in changed} == {"execution.json", "manifest.json"}


def test_a_path_that_a_hash_covers_is_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world")
    models = {"models": {"language_model": str(world / "models" / "lm")}}
    own = train(world, tmp_path / "runs", recipe=models)
    with pytest.raises(DataError, match="--with-paths"):
        pack([own], tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    pack([own], tmp_path / "a.zip", with_paths=True)
    assert not failed(verify_dossier(tmp_path / "a.zip"))


def test_damaged_runs_are_refused_and_unfinished_ones_said(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / run.name))
    edit_line(copy / "metrics.jsonl", 2, loss=1.0)
    with pytest.raises(DataError, match="fit their records"):
        pack([copy], tmp_path / "a.zip")
    world = make_world(tmp_path / "world")
    stopped = train(world, tmp_path / "runs", stop_after=3)
    pack([stopped], tmp_path / "b.zip")
    checks = verify_dossier(tmp_path / "b.zip")
    assert not failed(checks)
    assert "unfinished: preempted" in " ".join(check.message for check in checks)


def test_changed_answers_are_noticed(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / run.name))
    folder = answered(copy, [("Is it red?", "yes", None, "yes"), ("Blue?", "no", None, "yes")])
    folder.attempt_folder(1).mkdir(parents=True)
    write_json(folder.attempt_folder(1) / "launch.json", {"launcher": "slurm", "host": "node7"})
    pack([copy], tmp_path / "a.zip")
    assert not failed(verify_dossier(tmp_path / "a.zip"))
    assert not [name for name in zipfile.ZipFile(tmp_path / "a.zip").namelist() if "launch" in name]
    answers = f"runs/{run.name}/evaluations/{folder.path.name}/answers/gqa.jsonl"

    def forge(files: dict[str, bytes]) -> None:
        files[answers] = files[answers].replace(b'"yes"', b'"no"', 1)

    found = " ".join(failed(verify_dossier(repack(tmp_path / "a.zip", tmp_path / "b.zip", forge))))
    assert f"{answers} was changed" in found
    assert "line 1 does not follow" in found


def test_an_archive_is_not_replaced(run: Path, packed: Path) -> None:
    before = packed.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        pack([run], packed)
    assert packed.read_bytes() == before


def test_the_run_it_starts_from_comes_along(run: Path, tmp_path: Path) -> None:
    from densekit.runs.layout import RunDir

    first = Path(shutil.copytree(run, tmp_path / run.name))
    second = tmp_path / "second"
    second.mkdir()
    math = {**read_json(run / "math.json"), "starts_from": RunDir(run).sha256}
    write_json(second / "math.json", math)
    write_json(second / "status.json", {"state": "created", "attempt": 1})
    (second / "attempts/0001").mkdir(parents=True)
    shutil.copy(run / "attempts/0001/execution.json", second / "attempts/0001")
    _, listing = pack([second], tmp_path / "a.zip")
    assert [Path(entry.folder).name for entry in listing.runs] == [first.name, "second"]
    assert not failed(verify_dossier(tmp_path / "a.zip"))


def test_the_citation_file_has_what_its_format_needs() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["preferred-citation"]["title"] == "Dense Connector for MLLMs"
    assert len(cited["preferred-citation"]["authors"]) == 10
