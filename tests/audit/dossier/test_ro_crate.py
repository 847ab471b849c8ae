"""A dossier as the validator of RO-Crates sees it (`make ro-crate`)."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from densekit.audit.dossier.pack import pack
from tests.support import ro_crate
from tests.support.evaluations import answered
from tests.support.needs import needs
from tests.support.paths import ROOT
from tests.support.runs import make_world, train

pytestmark = [pytest.mark.ranks, pytest.mark.slow]
PACKAGES = ROOT / ".venv" / "ro_crate"


def found_in(*folders: Path) -> list[list[list[str]]]:
    """Severity, check and message of what each folder lacks."""
    if not PACKAGES.is_dir():
        needs("ro-crate", f"it is not in {PACKAGES}")
    spec = importlib.util.find_spec("rocrate")
    assert spec is not None and spec.origin is not None
    context = Path(spec.origin).parent / "data" / "ro-crate.jsonld"
    done = subprocess.run(
        [sys.executable, ro_crate.__file__, str(context), *map(str, folders)],
        env={**os.environ, "PYTHONPATH": str(PACKAGES)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[list[list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_validator_finds_a_dossier_valid(tmp_path: Path) -> None:
    run = train(make_world(tmp_path / "world"), tmp_path / "runs")
    answered(run, [("Is it red?", "yes", None, "yes"), ("Blue?", "no", None, "yes")])
    pack([run], tmp_path / "made.zip")
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in (good, bad):
        with zipfile.ZipFile(tmp_path / "made.zip") as opened:
            opened.extractall(folder)
    metadata = json.loads((bad / "ro-crate-metadata.json").read_text())
    for entity in metadata["@graph"]:
        if entity["@id"] == "./":
            del entity["datePublished"]
    (bad / "ro-crate-metadata.json").write_text(json.dumps(metadata))
    of_good, of_bad = found_in(good, bad)
    assert [(severity, message) for severity, _, message in of_good] == [
        ("RECOMMENDED", "File Data Entities SHOULD have a `contentSize` property"),
        (
            "RECOMMENDED",
            "The Root Data Entity SHOULD have a `publisher` property (Organization or Person)",
        ),
    ]
    assert any(severity == "REQUIRED" and "date" in text.lower() for severity, _, text in of_bad)
