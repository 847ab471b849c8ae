"""`densekit recipes`, `show` and `pin`: what can be run, and where each number comes from."""

import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from densekit.cli.options import AsJson, Overrides, RecipeName, RunsDir, complete_recipes
from densekit.cli.output import print_checks, print_json, print_lines
from densekit.errors import DensekitError, UsageError

PANEL = "Recipes"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit recipes")
def recipes(runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """List the recipes by the paper's tables: reported scores, and the verdict on runs here."""
    from densekit.cli.site import site_settings
    from densekit.recipes import listing
    from densekit.runs.verdicts import verdicts_here

    try:
        here = verdicts_here(site_settings(runs_dir=runs_dir).runs_dir)
    except DensekitError as error:
        print(f"densekit: verdicts on runs here are not shown: {error}", file=sys.stderr)
        here = {}
    if as_json:
        print_json(listing.as_json(here))
    else:
        print_lines(listing.list_lines(here))


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit show tiny_stage2 --sources")
def show(
    recipe: RecipeName,
    overrides: Overrides = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="Where each value is written, and its source")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print a recipe with everything it inherits."""
    from densekit.recipes.explain import explain, ledger_of, report, resolved
    from densekit.recipes.load import load_recipe

    values = resolved(recipe, overrides or ())
    if sources:
        explained = explain(recipe, overrides or ())
        if as_json:
            print_json([asdict(value) for value in explained])
        else:
            print_lines(report(explained))
    elif as_json:
        print_json(values)
    else:
        print(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True), end="")
        ledger = ledger_of(load_recipe(recipe, overrides or ()))
        print("\n".join(f"# ledger {line}" for line in ledger))


@commands.command(
    rich_help_panel=PANEL, epilog="Example: densekit new my_stage1 --from vicuna7b_stage1"
)
def new(
    name: Annotated[
        str, typer.Argument(help="Name of your recipe, such as my_stage1", show_default=False)
    ],
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="RECIPE",
            help="The recipe whose two stages yours extend",
            autocompletion=complete_recipes,
            show_default=False,
        ),
    ],
    captions: Annotated[
        Path | None,
        typer.Option(help="Annotations of stage 1 (default: NAME_stage1.json, to be put there)"),
    ] = None,
    instructions: Annotated[
        Path | None, typer.Option(help="Annotations of stage 2 (default: NAME_stage2.json)")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images [images]")] = None,
    language_model: Annotated[
        Path | None, typer.Option(help="Folder of a language model of your own")
    ] = None,
    vision_tower: Annotated[
        Path | None, typer.Option(help="Folder of a vision tower of your own")
    ] = None,
    to: Annotated[Path, typer.Option(help="Folder that gets the two files")] = Path(),
) -> None:
    """Write both stages of a recipe of your own, with comments.

    The batch is scaled to the data where they are given: of few samples the paper's batch makes
    too few steps.
    """
    from densekit.data.annotation_file import EntryScan, open_annotations
    from densekit.recipes.own import stage_names, write_own
    from densekit.recipes.own_text import OwnData, OwnParts

    def data(stage_name: str, given: Path | None) -> OwnData:
        if given is None:
            return OwnData(annotations=f"{stage_name}.json")
        with open_annotations(given) as file:
            counted = sum(1 for _ in EntryScan(given, file))
        return OwnData(annotations=os.path.relpath(given, to), samples=counted)

    def folder(given: Path | None) -> str | None:
        return None if given is None else os.path.relpath(given, to)

    first, second = stage_names(name)
    parts = OwnParts(
        stage1=data(first, captions),
        stage2=data(second, instructions),
        images=folder(images) or "images",
        language_model=folder(language_model),
        vision_tower=folder(vision_tower),
    )
    paths = write_own(name, start, parts, to)
    print("".join(f"written {path}\n" for path in paths), end="")
    print(
        f"next: edit them, then `densekit lint {shlex.quote(str(to))}` and `densekit plan "
        f"{shlex.quote(str(paths[1]))}`"
    )


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit lint recipes")
def lint(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder of recipes, or one YAML file", show_default=False
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Check every recipe of a folder, with all that it inherits and needs.

    Exit code 0: no check fails; 1: one does.
    """
    from densekit.recipes.lint import lint as lint_files

    print_checks(lint_files(place), as_json=as_json)


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit schema recipe")
def schema(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="recipe, or site for densekit.yaml")
    ] = "recipe",
) -> None:
    """Print the JSON Schema of recipes, or of densekit.yaml, for editors.

    The first line `# yaml-language-server: $schema=recipe.schema.json` of a recipe makes editors
    complete keys and show what they mean.
    """
    from densekit.recipes.schema import schema as schema_of

    if kind not in ("recipe", "site"):
        raise UsageError(f"schema {kind}: there is one of recipe, and one of site")
    print_json(schema_of("recipe" if kind == "recipe" else "site"))


class _Dumper(yaml.SafeDumper):
    """A list of numbers on one line: `[0, 1, 2]`."""

    def represent_numbers(self, values: list[Any]) -> yaml.Node:
        """The node of any list."""
        numbers = all(isinstance(value, int | float) for value in values)
        return self.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=numbers)


_Dumper.add_representer(list, _Dumper.represent_numbers)


@commands.command(rich_help_panel=PANEL, epilog="Example: densekit pin lmsys/vicuna-7b-v1.5")
def pin(
    repos: Annotated[
        list[str] | None,
        typer.Argument(
            help="Repositories of the hub (default: those without a commit)", show_default=False
        ),
    ] = None,
) -> None:
    """Pin models and data to commits of the hub, in recipes/revisions.yaml."""
    from densekit.recipes.revisions import pin as resolve

    found = resolve(repos or ())
    lines = [f"{repo} {commit}" for repo, commit in found.items()]
    print("\n".join(lines) or "every repository has a commit")
