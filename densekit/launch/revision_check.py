"""Whether the models and data in place are of the commits that recipes/revisions.yaml pins."""

from densekit.errors import DensekitError
from densekit.recipes.revisions import not_pinned, repositories
from densekit.runs.manifest import folder_commits
from densekit.spec.check import Check
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


def check_revisions(recipe: Recipe, roots: Roots) -> Check:
    """Compare what each folder says it was downloaded at with the pin; `warn` for a difference and
    for no pin.
    """
    name = f"{recipe.name}: revisions"
    try:
        found = repositories(recipe)
    except DensekitError as error:
        return Check(name=name, state="fail", message=str(error))
    troubles, silent = [], []
    open_ones: dict[str, bool] = {}
    for repo in found:
        folder = roots.resolve(repo.reference)
        here = ", ".join(sorted(folder_commits(folder)))
        if repo.commit is None:
            open_ones[repo.name + (f" (here: {here})" if here else "")] = repo.listed
        elif here and here != repo.commit:
            troubles.append(
                f"{folder} is of commit {here}, recipes/revisions.yaml pins {repo.commit} for {repo.name}: "
                "download that one, or pin the other"
            )
        elif not here:
            silent.append(repo.name)
    troubles += not_pinned(open_ones)
    if troubles:
        return Check(name=name, state="warn", message="; ".join(troubles))
    told = f"; nothing says it for {', '.join(silent)}" if silent else ""
    return Check(
        name=name,
        state="ok",
        message=f"{len(found) - len(silent)} of the pinned commits are here{told}",
    )
