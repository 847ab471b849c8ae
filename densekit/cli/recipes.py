"""`densekit recipes`, `show` and `pin`: what can be run, and where each number comes from."""

from dataclasses import asdict
from typing import Annotated

import typer
import yaml

from densekit.cli.options import AsJson, Overrides, RecipeName
from densekit.cli.output import print_json
from densekit.recipes.load import load_recipe

commands = typer.Typer()


@commands.command()
def recipes(as_json: AsJson = False) -> None:
    """List the recipes as the paper's tables have them, with the scores that it reports."""
    from densekit.recipes import listing

    if as_json:
        print_json(listing.as_json())
    else:
        print("\n".join(listing.list_lines()))


@commands.command()
def show(
    recipe: RecipeName,
    overrides: Overrides = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="Say of every value where it was written, and why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print a recipe with everything it inherits."""
    from densekit.recipes.explain import explain, report

    values = load_recipe(recipe, overrides or ()).model_dump(mode="json")
    told = explain(recipe, overrides or ()) if sources else []
    if as_json:
        print_json([asdict(value) for value in told] if sources else values)
    elif sources:
        print("\n".join(report(told)))
    else:
        print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), end="")


@commands.command()
def pin(
    repos: Annotated[
        list[str] | None, typer.Argument(help="Repositories; by default those without a commit.")
    ] = None,
) -> None:
    """Ask the hub for the commits of models and data, and write them into recipes/revisions.yaml."""
    from densekit.recipes.revisions import pin as resolve

    found = resolve(repos or ())
    print(
        "\n".join(f"{repo} {commit}" for repo, commit in found.items())
        or "every repository has a commit"
    )
