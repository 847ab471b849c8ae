"""What is published: a complete run and everything that its card says, read once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from densekit.data.catalog import DataSet, data_set_of
from densekit.data.model_licenses import ModelLicense, license_of
from densekit.errors import DataError, UsageError
from densekit.files.json_files import read_object
from densekit.recipes.explain import leaves
from densekit.recipes.load import load_recipe
from densekit.recipes.revisions import repositories
from densekit.runs.complete import check_complete
from densekit.runs.evaluations import StoredResult, newest_results
from densekit.runs.layout import MATH_FILE, RunDir
from densekit.runs.manifest import Manifest, read_manifest
from densekit.runs.results import RESULTS_FILE
from densekit.runs.verdicts import Verdict, newer_answers, read_verdict
from densekit.spec.imported import is_imported
from densekit.spec.ledger import ledger_lines
from densekit.spec.math import MADE_ASSETS, RunMath
from densekit.spec.recipe import Recipe
from densekit.spec.types import Dtype

UNCHANGED = ("name", "assets", "data.samples")
"""Fields of the math that do not say how a run differs from its recipe."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A complete run, as its files describe it."""

    run: RunDir
    math: RunMath
    manifest: Manifest
    dtype: Dtype
    """That the run computed in."""
    summary: dict[str, Any]
    """Totals of results.json."""
    results: tuple[StoredResult, ...]
    """The newest result of each benchmark."""
    verdict: Verdict | None
    outdated: tuple[str, ...]
    """The benchmarks that were asked anew since the verdict."""

    @cached_property
    def recipe(self) -> Recipe | None:
        """The recipe of that name, where densekit ships one."""
        try:
            return load_recipe(self.math.recipe.name)
        except UsageError:
            return None

    @cached_property
    def repositories(self) -> dict[str, str]:
        """Repository on the hub, by the field of the recipe that refers to it."""
        if self.recipe is None:
            return {}
        named = self.recipe.model_copy(
            update={"models": self.math.recipe.models, "data": self.recipe.data}
        )
        return {each.field: each.name for each in repositories(named)}

    @property
    def made(self) -> bool:
        """Whether densekit made the pretrained models itself."""
        return self.math.recipe.models.language_model.startswith(MADE_ASSETS)

    @property
    def license(self) -> ModelLicense | None:
        """Terms of the language model, where they are known."""
        return license_of(self.repositories.get("models.language_model", ""))

    @property
    def data_set(self) -> DataSet | None:
        """The published data set that the annotations are of."""
        return data_set_of(self.math.recipe.data.annotations)

    def deviations(self) -> Iterator[str]:
        """Every way in which the run is not what its recipe, or the official code, computes."""
        yield from self._from_recipe()
        yield from (
            line
            for line in ledger_lines(self.math.recipe, self.dtype)
            if "not followed" in line or "U12" in line or "U13" in line
        )
        certificate = self.manifest.certificate
        counts = (
            (certificate.samples_dropped, "samples were dropped from the end of the order"),
            (certificate.samples_repeated, "samples were repeated to fill the last step"),
            (self.summary.get("masked_samples", 0), "samples had no label position"),
            (self.summary.get("skipped_steps", 0), "steps changed no weight (fp16 overflow)"),
        )
        yield from (f"{count} {what}" for count, what in counts if count)
        if self.math.recipe.data.missing != "refuse":
            yield f"`data.missing: {self.math.recipe.data.missing}` for images that cannot be used"

    def _from_recipe(self) -> Iterator[str]:
        if self.recipe is None:
            yield f"{self.math.recipe.name} is not a recipe that densekit ships"
            return
        ours = _values(self.math.recipe.as_json())
        theirs = _values(self.recipe.math().as_json())
        for field in sorted(ours.keys() | theirs.keys()):
            if field not in UNCHANGED and ours.get(field) != theirs.get(field):
                yield (
                    f"`{field}` is {shown(ours.get(field))}, and {shown(theirs.get(field))} in the "
                    "recipe"
                )


def read_subject(path: Path) -> Subject:
    """The run at `path`. Raises UsageError for anything but a run, DataError for one that is not
    complete or whose files are not what it recorded.
    """
    if is_imported(path):
        raise UsageError(
            f"{path} is an imported checkpoint, which is its authors' to publish: give a run that "
            "was trained here (`densekit export` writes it in other formats)"
        )
    if not (path / MATH_FILE).is_file():
        raise UsageError(f"{path} is not a run directory: `densekit ls` lists the runs")
    run = RunDir(path)
    if not run.complete:
        raise DataError(f"{path} is {run.status.state}, not complete: train it to its end first")
    check_complete(run)
    summary = read_object(path / RESULTS_FILE, "summary")["summary"]
    results, verdict = newest_results(path), read_verdict(path)
    return Subject(
        run=run,
        math=run.math,
        manifest=read_manifest(path),
        dtype=run.execution.dtype,
        summary=summary if isinstance(summary, dict) else {},
        results=tuple(result for _, result in results.values()),
        verdict=verdict,
        outdated=newer_answers(verdict, results) if verdict else (),
    )


def shown(value: Any) -> str:
    """A value of a recipe in a sentence; of a path its last part: the rest is this machine's."""
    if isinstance(value, str):
        local = value.startswith(("/", "~", "."))
        return f"`{PurePosixPath(value).name if local else value}`"
    if isinstance(value, list | tuple):
        return f"[{', '.join(shown(each).strip('`') for each in value)}]"
    return "null" if value is None else str(value)


def _values(math: dict[str, Any]) -> dict[str, Any]:
    return {".".join(field): value for field, value in leaves(math)}
