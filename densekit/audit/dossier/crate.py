"""A dossier's ro-crate-metadata.json: what the files are, for programs that know RO-Crate."""

import json
from collections.abc import Sequence
from pathlib import Path

import densekit
from densekit.audit.dossier.listing import Dossier

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
        "softwareVersion": densekit.__version__,
    }
    crate.root_dataset["license"] = crate.add(
        ContextEntity(crate, LICENSE, {"@type": "CreativeWork", "name": "Apache-2.0"})
    )
    crate.root_dataset["citation"] = crate.add(ContextEntity(crate, PAPER, paper))
    tool = crate.add(ContextEntity(crate, "#densekit", kit))
    sizes = {entry.path: (entry.bytes, entry.sha256) for entry in dossier.files}
    files = {}
    for path in [*sizes, *extra]:
        values = {"name": Path(path).name, "encodingFormat": FORMATS.get(Path(path).suffix)}
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
    crate.root_dataset["mentions"] = actions
    return json.dumps(crate.metadata.generate(), indent=1, ensure_ascii=False).encode() + b"\n"
