"""Whether the models and data in place are of the commits that recipes/revisions.yaml pins."""

from densekit.errors import DensekitError
from densekit.recipes.revisions import not_pinned, repositories
from densekit.runs.manifest import folder_commits
from densekit.spec.check import Check
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


def check_revisions(recipe: Recipe, roots: Roots) -> Check:
    """Compare the commit that each folder records with the pinned one; `warn` for a difference and
    where nothing is pinned.
    """
    name = f"{recipe.name}: revisions"
    try:
        found = repositories(recipe)
    except DensekitError as error:
        return Check(name=name, state="fail", message=str(error))
    problems, unknown = [], []
    unpinned: dict[str, bool] = {}
    for repo in found:
        folder = roots.resolve(repo.reference)
        here = ", ".join(sorted(folder_commits(folder)))
        if repo.commit is None:
            unpinned[repo.name + (f" (here: {here})" if here else "")] = repo.listed
        elif here and here != repo.commit:
            problems.append(
                f"{folder} is of commit {here}, recipes/revisions.yaml pins {repo.commit} for "
                f"{repo.name}: download the pinned commit, or pin {here}"
            )
        elif not here:
            unknown.append(repo.name)
    problems += not_pinned(unpinned)
    if problems:
        return Check(name=name, state="warn", message="; ".join(problems))
    message = f"{len(found) - len(unknown)} of {len(found)} are of the pinned commit"
    if unknown:
        message += f"; the commit of {', '.join(unknown)} is not recorded in its folder"
    return Check(name=name, state="ok", message=message)
