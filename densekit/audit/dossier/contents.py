"""What a dossier holds: the records of runs, not their weights, and what was made of them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from densekit.audit.dossier.listing import RUNS, DossierRun
from densekit.audit.dossier.redaction import redacted
from densekit.audit.report.evidence import evidence_of, record_problems
from densekit.audit.report.gather import scrubber_of
from densekit.audit.report.write import REPORT_FILE, write_report
from densekit.audit.run_reader import RecordedRun, read_run
from densekit.errors import DataError, DensekitError
from densekit.recipes.explain import resolved
from densekit.recipes.load import load_recipe
from densekit.runs.environment import Environment
from densekit.runs.layout import MATH_FILE, RunDir

CITATION_FILE = "CITATION.cff"
SBOM_FILE = "sbom.cdx.json"
RECIPE_FILE = "recipe.yaml"


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One file, as it goes into a dossier."""

    path: str
    """In the dossier."""
    data: bytes
    original: Path | None = None
    """Whose copy it is; None: it was made for the dossier."""


def with_stage1(runs: Sequence[Path]) -> list[Path]:
    """The runs, each after the one that it starts from where that one is still there."""
    found: list[Path] = []
    for path in runs:
        found += [place for place in (_stage1(path), path) if place and place not in found]
    return found


def packed_run(path: Path, *, with_paths: bool) -> tuple[DossierRun, list[Packed]]:
    """A run's entry of dossier.json, and its files.

    Raises DataError for a damaged run, and for one whose identity names a folder of this machine,
    unless `with_paths`.
    """
    run = read_run(path)
    evidence = [file for file in evidence_of(run) if file.state != "missing"]
    problem = next(record_problems(run, evidence), None)
    if problem is not None or run.math is None or run.status is None:
        said = problem.message if problem else f"{path} has no {MATH_FILE}"
        raise DataError(f"{said}; a dossier holds runs that fit their records: `densekit verify`")
    folder = f"{RUNS}/{path.resolve().name}"
    outputs = run.manifest.outputs if run.manifest else {}
    left_out = {name: digest for name, digest in outputs.items() if _is_of_model(name)}
    entry = DossierRun(
        folder=folder,
        recipe=run.math.recipe.name,
        sha256=run.math.sha256,
        state=run.status.state,
        left_out=left_out,
    )
    scrub = scrubber_of(run)
    files = []
    for file in evidence:
        if file.path in left_out:
            continue
        place = run.path / file.path
        data = place.read_bytes()
        if not with_paths:
            data = redacted(data, file.path, scrub, path=place)
        files.append(Packed(path=f"{folder}/{file.path}", data=data, original=place))
    files += [Packed(path=f"{folder}/{name}", data=data) for name, data in _made_of(run)]
    return entry, files


def report_of(run: Path, folder: str, scratch: Path) -> Packed:
    """The page of a run as it is now."""
    page = write_report(run, scratch / REPORT_FILE)
    return Packed(path=f"{folder}/{REPORT_FILE}", data=page.read_bytes())


def sbom(environment: Environment) -> bytes:
    """The packages that an attempt ran with, as a CycloneDX list (specification 1.5)."""
    components = [
        {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
        for name, version in sorted(environment.packages.items())
    ]
    value = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": components,
    }
    return json.dumps(value, indent=1).encode() + b"\n"


def _made_of(run: RecordedRun) -> Iterator[tuple[str, bytes]]:
    """What follows from a run's records."""
    if run.environment is not None:
        yield SBOM_FILE, sbom(run.environment)
    assert run.math is not None
    name = run.math.recipe.name
    try:
        if load_recipe(name).math() == run.math.recipe:
            text = yaml.safe_dump(resolved(name), sort_keys=False, allow_unicode=True)
            yield RECIPE_FILE, text.encode()
    except DensekitError:
        return  # a recipe of one's own: math.json has all that decides the result


def _stage1(path: Path) -> Path | None:
    """The run that a run starts from: where its execution says, or beside it."""
    try:
        run = RunDir(path)
        wanted = run.math.starts_from
        if wanted is None:
            return None
        beside = [folder.parent for folder in sorted(path.resolve().parent.glob(f"*/{MATH_FILE}"))]
        said = run.execution.starts_from
        for place in ([Path(said)] if said else []) + beside:
            if (place / MATH_FILE).is_file() and RunDir(place).sha256 == wanted:
                return place
    except DensekitError:
        return None
    return None


def _is_of_model(name: str) -> bool:
    """Whether an output is weights or belongs to them."""
    return name.endswith(".safetensors") or name.startswith(("model/", "lora/"))
