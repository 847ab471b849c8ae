"""`densekit verify FILE.zip`: a dossier rechecked from its bytes up to the runs in it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from densekit.audit.dossier.archive import REMEDY, check_bytes, extract
from densekit.audit.dossier.listing import CRATE_FILE, DOSSIER_FILE, Dossier, DossierRun
from densekit.audit.report.evidence import evidence_of, record_problems
from densekit.audit.run_reader import read_run
from densekit.audit.wording import count_of
from densekit.errors import DataError
from densekit.files.hashing import check_seal, file_sha256
from densekit.files.json_files import read_object
from densekit.spec.check import Check
from densekit.spec.part import read_part


def verify_dossier(path: Path) -> list[Check]:
    """Recheck a dossier: its own bytes, every file in it, and that the records of each run fit each
    other. What is damaged is a `fail`; nothing of the archive is kept.
    """
    checks: list[Check] = []
    try:
        digest = check_bytes(path)
        checks.append(Check(name="archive", state="ok", message=f"its bytes are those of {digest}"))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            names = extract(path, folder)
            dossier = _listing(path, folder)
            checks.append(_check_files(dossier, folder, names))
            checks.append(_check_crate(dossier, folder))
            for run in dossier.runs:
                checks += _check_run(run, folder)
    except DataError as error:
        checks.append(Check(name="archive", state="fail", message=_named(str(error), path)))
    return checks


def _listing(path: Path, folder: Path) -> Dossier:
    place = folder / DOSSIER_FILE
    value = read_object(place, remedy=REMEDY)
    if not check_seal(value):
        raise DataError(f"{path}: {DOSSIER_FILE} was edited: its hash does not fit; {REMEDY}")
    return read_part(Dossier, value, source=f"{path}: {DOSSIER_FILE}", remedy=REMEDY)


def _check_files(dossier: Dossier, folder: Path, names: list[str]) -> Check:
    """Every file is listed, and every listed file is what it was."""
    listed = {entry.path: entry for entry in dossier.files}
    there = set(names) - {DOSSIER_FILE}
    problems = [f"{name} is not listed in {DOSSIER_FILE}" for name in sorted(there - listed.keys())]
    problems += [f"{name} is missing" for name in sorted(listed.keys() - there)]
    problems += [
        f"{name} was changed"
        for name in sorted(there & listed.keys())
        if file_sha256(folder / name) != listed[name].sha256
    ]
    if problems:
        return Check(name="files", state="fail", message=f"{'; '.join(problems)}; {REMEDY}")
    copies = sum(entry.original_sha256 is not None for entry in dossier.files)
    without = f"; paths and hosts were taken out of {copies}" if copies else ""
    message = f"{count_of(len(listed), 'file')} with their hashes{without}"
    return Check(name="files", state="ok", message=message)


def _check_crate(dossier: Dossier, folder: Path) -> Check:
    """The RO-Crate speaks of the same files."""
    graph = read_object(folder / CRATE_FILE, "@context", "@graph", remedy=REMEDY)["@graph"]
    parts = graph if isinstance(graph, list) else []
    entities = {str(part.get("@id")): part for part in parts if isinstance(part, dict)}
    silent = [
        entry.path
        for entry in dossier.files
        if entry.path != CRATE_FILE and entities.get(entry.path, {}).get("sha256") != entry.sha256
    ]
    if silent or entities.get(CRATE_FILE, {}).get("about") != {"@id": "./"}:
        message = f"{CRATE_FILE} does not describe {', '.join(silent) or 'this folder'}; {REMEDY}"
        return Check(name="RO-Crate", state="fail", message=message)
    return Check(name="RO-Crate", state="ok", message="it describes every file")


def _check_run(listed: DossierRun, folder: Path) -> Iterator[Check]:
    """The records of one run, as far as they go without its weights, its data and its models."""
    name = f"run {listed.sha256[:10]}"
    try:
        run = read_run(folder / listed.folder)
        evidence = [
            file
            for file in evidence_of(run)
            if not (file.state == "missing" and listed.left_out.get(file.path) == file.recorded)
        ]
        found = [problem.message for problem in record_problems(run, evidence)]
        says = (run.math and run.math.recipe.name, run.status and run.status.state)
        if says != (listed.recipe, listed.state):
            found.append(f"{listed.folder} is of another recipe or state than {DOSSIER_FILE} says")
        if run.math is None or run.math.sha256 != listed.sha256:
            found.append(f"{listed.folder} is not the run that {DOSSIER_FILE} names")
    except DataError as error:
        found = [str(error)]
    problems = [text.replace(f"{folder}/", "") for text in found]
    if problems:
        yield Check(name=name, state="fail", message="; ".join(problems))
        return
    state = "" if listed.state == "complete" else f" (unfinished: {listed.state})"
    message = f"{listed.recipe}{state}: {count_of(len(run.steps), 'step')} fit their hash chain"
    yield Check(name=name, state="ok", message=message)
    if listed.left_out:
        count = count_of(len(listed.left_out), "file")
        message = f"of the trained model, {count} stayed behind; the dossier has hashes alone"
        yield Check(name=name, state="warn", message=message)


def _named(message: str, path: Path) -> str:
    return message if str(path) in message else f"{path}: {message}"
