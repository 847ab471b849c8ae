"""From recipes to what is fetched for them: the models and data of each and of the stage it needs,
the benchmarks of the catalog, and the logs of published trainings.
"""

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from densekit.data.catalog import DataSet, FileObject, data_set_of, data_sets
from densekit.data.fetch.fetch import fetch_missing, survey
from densekit.data.fetch.hub import HubClient
from densekit.data.fetch.job import Job, Subject, Tools
from densekit.data.fetch.model_job import ModelJob
from densekit.data.fetch.part_job import HUB_URL, PartJob
from densekit.data.fetch.progress import Progress
from densekit.data.fetch.transfer import Transfer
from densekit.errors import DataError, DensekitError, UsageError
from densekit.launch.conversion import convert, converter
from densekit.launch.launchers.base import Launcher
from densekit.launch.launchers.options import LauncherOptions
from densekit.launch.verifying import verified
from densekit.recipes.load import load_needed, load_recipe
from densekit.recipes.revisions import Revisions, load_revisions, repositories
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from densekit.spec.site import Site

SUBJECTS: tuple[Subject, ...] = ("models", "data", "benchmarks", "trajectories")
DEFAULT: tuple[Subject, ...] = ("models", "data")
"""What training needs."""


def jobs_of(
    names: Sequence[str],
    overrides: Sequence[str],
    roots: Roots,
    *,
    only: Sequence[Subject] = DEFAULT,
    parts: Sequence[str] = (),
) -> list[Job]:
    """What the recipes read that can be fetched, once each.

    Raises UsageError for an unknown recipe, and for a part that none of them has.
    """
    revisions = load_revisions()
    chain = chain_of(names, overrides)
    found: dict[str, Job] = {}
    for job in (
        *(job for recipe in chain for job in _models(recipe, roots, revisions)),
        *(job for recipe in chain for job in _data(recipe, roots, revisions)),
        *(job for entry in data_sets("benchmark") for job in _parts(entry, roots, revisions)),
        *(job for recipe in chain for job in _trajectories(recipe, roots, revisions)),
    ):
        if job.subject in only:
            found.setdefault(job.label, job)
    if not parts:
        return [*found.values()]
    for part in parts:
        if not any(_is_called(job, part) for job in found.values()):
            known = ", ".join(_short(job) for job in found.values()) or "nothing is fetched for it"
            raise UsageError(
                f"--part {part}: {', '.join(names)} has no such part; there is {known}"
            )
    return [job for job in found.values() if any(_is_called(job, part) for part in parts)]


def fetches(recipe: Recipe, field: str, roots: Roots) -> bool:
    """Whether `densekit fetch` gets what a field of the recipe refers to."""
    if field == "data.annotations":
        data_set = data_set_of(recipe.data.annotations)
        return data_set is not None and _goes_there(recipe, data_set, roots)
    return any(repo.field == field for repo in repositories(recipe))


def by_hand(recipe: Recipe) -> str | None:
    """How a person gets the data of a recipe, and the models that come with them; None where they
    are fetched, or nobody knows them.
    """
    data_set = data_set_of(recipe.data.annotations)
    ways = (file.by_hand for file in data_set.distribution) if data_set else ()
    return next((way for way in ways if way), None)


def fetch(
    jobs: Sequence[Job],
    recipes: Sequence[Recipe],
    roots: Roots,
    launcher: Launcher,
    *,
    brought: Path | None = None,
) -> list[str]:
    """Say what is there and what comes, check the room, fetch what is missing, convert pickled
    weights in the launcher's trainer environment, and verify the data of `recipes` that came.
    Returns what only a person can get, and how.

    Raises DataError that names everything else that did not come.
    """
    if brought is not None and not brought.is_dir():
        raise UsageError(f"--from {brought}: there is no such folder")
    with Progress() as progress:
        transfer = Transfer(say=progress.say)
        tools = Tools(transfer=transfer, hub=HubClient(), progress=progress, brought=brought)
        try:
            found = survey(jobs, tools)
            for line in (*found.lines(), *found.room()):
                progress.say(line)
            problems = fetch_missing(found, tools, progress.say)
            problems += _convert(jobs, launcher, progress)
            if not problems:
                _verify(found.missing, recipes, tools, roots, progress)
        finally:
            transfer.close()
    if problems:
        raise DataError("\n".join(problems))
    return found.by_hand


def _convert(jobs: Sequence[Job], launcher: Launcher, progress: Progress) -> list[str]:
    """Make safetensors of what came as pickles alone; returns what is wrong."""
    problems = []
    for job in jobs:
        if not (isinstance(job, ModelJob) and job.needs_conversion):
            continue
        progress.say(f"converting {job.place} from pickles to safetensors")
        try:
            for line in convert(job.place, None, launcher):
                progress.say(line)
        except DensekitError as error:
            problems.append(
                f"{job.label}: {error}; `densekit convert {shlex.quote(str(job.place))}` tries it "
                "again"
            )
    return problems


def _verify(
    fetched: Sequence[Job],
    recipes: Sequence[Recipe],
    tools: Tools,
    roots: Roots,
    progress: Progress,
) -> None:
    """Examine the data sets of recipes of which a part came, once all of it is there."""
    came = {job.data_set.name for job in fetched if isinstance(job, PartJob)}
    for recipe in recipes:
        data_set = data_set_of(recipe.data.annotations)
        if data_set is None or data_set.name not in came:
            continue
        came.remove(data_set.name)
        parts = _parts(data_set, roots, load_revisions())
        absent = [_short(part) for part in parts if part.look(tools).state != "complete"]
        if absent:
            more = (
                f" without {', '.join(absent)}: `densekit data verify {data_set.name}` does later"
            )
            progress.say(f"not verified yet: {data_set.name}{more}")
            continue
        progress.say(f"verifying {data_set.name}: every entry, and the header of every image")
        progress.say(verified(data_set, recipe, roots))


def fetch_for_run(names: Sequence[str], overrides: Sequence[str], site: Site) -> None:
    """What `densekit run --fetch` does before its checks, which find what only a person can get."""
    jobs, recipes = jobs_of(names, overrides, site.roots), chain_of(names, overrides)
    if jobs:
        print(f"fetching what {', '.join(names)} reads", file=sys.stderr, flush=True)
        trainer = converter(None, LauncherOptions(), site)
        for line in fetch(jobs, recipes, site.roots, trainer):
            print(line, file=sys.stderr, flush=True)


def chain_of(names: Sequence[str], overrides: Sequence[str]) -> list[Recipe]:
    """Every recipe, behind the stage that it needs."""
    chain = []
    for name in names:
        recipe = load_recipe(name, overrides)
        shared = [override for override in overrides if override.startswith("models.")]
        chain += [load_needed(recipe, name, shared)] if recipe.needs else []
        chain.append(recipe)
    return chain


def _models(recipe: Recipe, roots: Roots, revisions: Revisions) -> Iterable[Job]:
    for repo in repositories(recipe, revisions):
        if repo.reference.startswith("models:") and not recipe.makes(repo.reference):
            yield ModelJob(repository=repo.name, commit=repo.commit, root=roots.models)


def _data(recipe: Recipe, roots: Roots, revisions: Revisions) -> Iterable[Job]:
    data_set = data_set_of(recipe.data.annotations)
    if data_set is not None and _goes_there(recipe, data_set, roots):
        yield from _parts(data_set, roots, revisions)


def _trajectories(recipe: Recipe, roots: Roots, revisions: Revisions) -> Iterable[Job]:
    for entry in data_sets("trajectory"):
        if recipe.name in entry.recipes:
            yield from _parts(entry, roots, revisions)


def _parts(data_set: DataSet, roots: Roots, revisions: Revisions) -> Iterable[Job]:
    for file in data_set.distribution:
        elsewhere = HUB_URL.fullmatch(file.content_url or "")
        repository = elsewhere[1] if elsewhere else data_set.repository
        commit = revisions.datasets.get(repository or "")
        commit = commit or (None if elsewhere else data_set.revision)
        yield PartJob(data_set=data_set, file=file, commit=commit, root=roots.data)


def _goes_there(recipe: Recipe, data_set: DataSet, roots: Roots) -> bool:
    """Whether the annotation file that a recipe names is where the data set puts it."""
    file = _annotation_file(data_set)
    if file is None:
        return False
    place = roots.data / data_set.root / file.folder / file.file_name
    return place == roots.resolve(recipe.data.annotations)


def _annotation_file(data_set: DataSet) -> FileObject | None:
    return next(
        (file for file in data_set.distribution if file.file_name == data_set.annotations), None
    )


def _short(job: Job) -> str:
    return job.file.name if isinstance(job, PartJob) else job.label


def _is_called(job: Job, part: str) -> bool:
    """Whether a part of a command line means a job: its name, or the first or last folder of it."""
    name = _short(job)
    return part in (name, job.label, name.partition("/")[0], name.rpartition("/")[2])
