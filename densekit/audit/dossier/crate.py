"""A dossier's ro-crate-metadata.json: what the files are, for programs that know RO-Crate."""

import json
from collections.abc import Sequence
from pathlib import Path

import densekit
from densekit.audit.dossier.contents import CITATION_FILE, RECIPE_FILE, SBOM_FILE
from densekit.audit.dossier.listing import DOSSIER_FILE, Dossier
from densekit.audit.report.write import REPORT_FILE
from densekit.runs.environment import ENVIRONMENT_FILE
from densekit.runs.evaluations import EVALUATION_FILE
from densekit.runs.layout import (
    CERTIFICATE_FILE,
    EXECUTION_FILE,
    LOG_FILE,
    MATH_FILE,
    MISSING_FILE,
    STATUS_FILE,
)
from densekit.runs.manifest import MANIFEST_FILE
from densekit.runs.records import FEED_FILE, METRICS_FILE
from densekit.runs.results import RESULTS_FILE
from densekit.runs.verdicts import VERDICT_FILE

PAPER = "https://arxiv.org/abs/2405.13800"
LICENSE = "https://spdx.org/licenses/Apache-2.0"
FORMATS = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".html": "text/html",
    ".yaml": "application/yaml",
    ".cff": "application/yaml",
    ".txt": "text/plain",
}
ABOUT = {
    MATH_FILE: "What decides the result of the run: its hash is the run",
    STATUS_FILE: "State of the run and its latest attempt",
    MANIFEST_FILE: "What ran and from what, and the hash of each file that it wrote",
    METRICS_FILE: "A line for each step: loss, learning rate, gradient norm, times, hash chain",
    FEED_FILE: "A line for each step: the samples that it fed",
    CERTIFICATE_FILE: "What the run feeds: steps, and one SHA-256 over the ordered sample ids",
    MISSING_FILE: "Entries of the annotations that were dropped or replaced",
    RESULTS_FILE: "Totals: of the steps of the run, or of the scores of an evaluation",
    EXECUTION_FILE: "How one attempt was carried out: device, processes, kernel, dtype",
    ENVIRONMENT_FILE: "Where one attempt ran: packages, platform, devices",
    LOG_FILE: "What one attempt printed",
    VERDICT_FILE: "Whether the paper's numbers were reproduced",
    EVALUATION_FILE: "What was asked, and of which model",
    RECIPE_FILE: "The recipe with everything that it inherits",
    SBOM_FILE: "The packages that the run ran with, as a CycloneDX list",
    REPORT_FILE: "The page of the run, for a browser",
    CITATION_FILE: "How to cite densekit and the paper",
    DOSSIER_FILE: "Size and SHA-256 of every other file of this dossier",
}
"""What a file is, by its name."""
ABOUT_FOLDER = {
    "questions": "The questions of a benchmark, in the order that they are asked",
    "answers": "The answers to the questions of a benchmark",
    "scores": "What each answer to a benchmark scored",
}
"""What the other files are, by the folder that they lie in."""


def crate_metadata(dossier: Dossier, folder: Path, extra: Sequence[str]) -> bytes:
    """The JSON-LD of a dossier whose files lie below `folder`; `extra` are files that dossier.json
    does not list.
    """
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate

    crate = ROCrate()
    recipes = ", ".join(run.recipe for run in dossier.runs)
    crate.name = f"densekit dossier: {recipes}"
    crate.description = (
        "Records of training runs of Dense Connector for MLLMs: what ran, from what, every step, "
        "and what was answered. `densekit verify` rechecks it without a GPU."
    )
    paper = {"@type": "ScholarlyArticle", "name": "Dense Connector for MLLMs", "url": PAPER}
    kit = {
        "@type": "SoftwareApplication",
        "name": "densekit",
        "version": densekit.__version__,
        "url": PAPER,  # a project without a page of its own
    }
    crate.root_dataset["license"] = crate.add(
        ContextEntity(
            crate,
            LICENSE,
            {
                "@type": "CreativeWork",
                "name": "Apache-2.0",
                "description": "Apache License, version 2.0",
            },
        )
    )
    crate.root_dataset["citation"] = crate.add(ContextEntity(crate, PAPER, paper))
    tool = crate.add(ContextEntity(crate, "#densekit", kit))
    sizes = {entry.path: (entry.bytes, entry.sha256) for entry in dossier.files}
    files = {}
    for path in [*sizes, *extra]:
        place = Path(path)
        values = {
            "name": place.name,
            "description": ABOUT.get(place.name) or ABOUT_FOLDER.get(place.parent.name),
            "encodingFormat": FORMATS.get(place.suffix),
        }
        if path in sizes:
            size, digest = sizes[path]
            values |= {"contentSize": str(size), "sha256": digest}
        known = {name: value for name, value in values.items() if value}
        files[path] = crate.add_file(folder / path, path, properties=known)
    actions = []
    for run in dossier.runs:
        action = crate.add(
            ContextEntity(
                crate,
                f"#run-{run.sha256[:10]}",
                {
                    "@type": "CreateAction",
                    "name": f"training of {run.recipe} ({run.state})",
                    "identifier": run.sha256,
                },
            )
        )
        action["instrument"] = tool
        action["result"] = [
            file for path, file in files.items() if path.startswith(f"{run.folder}/")
        ]
        actions.append(action)
    crate.root_dataset["mentions"] = actions if len(actions) > 1 else actions[0]
    return json.dumps(crate.metadata.generate(), indent=1, ensure_ascii=False).encode() + b"\n"
