"""Whether a data set that was fetched is what training takes, in one line."""

from densekit.data.catalog import DataSet
from densekit.data.doctor.examine import Request, examine
from densekit.data.doctor.pool import usual_workers
from densekit.data.doctor.subject import subject_of_recipe
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots

SMALL = 10_000_000
"""Bytes of an annotation file below which starting processes costs more than it saves."""


def verified(data_set: DataSet, recipe: Recipe, roots: Roots) -> str:
    """What `densekit data verify` finds in the data of a recipe, without decoding images. What is
    wrong is said and no error: what was asked for was fetched, and a run is refused by its checks.
    """
    subject = subject_of_recipe(recipe.name, recipe, roots)
    small = not subject.annotations.is_file() or subject.annotations.stat().st_size < SMALL
    found = examine(subject, Request(workers=0 if small else usual_workers()), roots.cache)
    seen = f"{found.entries.count:,} entries, {len(found.entries.images):,} images"
    command = f"`densekit data verify {data_set.name}`"
    if not found.errors:
        notes = f"; {found.notes:,} notes: {command}" if found.notes else ""
        return f"verified  {data_set.name}: {seen}, nothing that training refuses{notes}"
    kinds = ", ".join(
        f"{group.kind.what} ({len(group.places):,})"
        for group in found.findings.groups()
        if group.severity == "error"
    )
    return f"verified  {data_set.name}: {seen}; training refuses: {kinds}; {command} says more"
