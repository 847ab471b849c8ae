"""The recipes as the paper's tables have them: one line per configuration, with the scores that the
paper reports.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from densekit.recipes.load import load_recipe, recipe_names
from densekit.recipes.paper import Conflict, Number, Paper, Score, Table, decimals, load_paper
from densekit.spec.connector import Connector
from densekit.spec.math import MADE_ASSETS
from densekit.spec.recipe import Recipe

DISAGREE = "!"
NEVER = "never"
"""In the column `here`: no run of the recipe was judged."""
WIDTH = 80
"""Of a table; where it would be wider, the scores are on a line of their own."""
LEGEND = (
    "Connectors: STI sparse token integration, SCI sparse channel integration, DCI dense channel "
    "integration.",
    "Columns: SQA-I ScienceQA with images, MMB MMBench, MME-P MME perception, LLaVA-W LLaVA-Bench "
    "in the wild, Math MathVista.",
    "Video: /5 is the judge's mean score, 0 to 5, of the benchmark to its left; CI correctness of "
    "information, DO detail orientation, CU contextual understanding, TU temporal understanding, "
    "CO consistency, each 0 to 5.",
    "Here: what `densekit verdict` said of the newest runs in the folder of runs, in one word "
    "(docs/verdicts.md).",
)
"""What the short names of `densekit recipes` stand for."""
_TOWERS = {"siglip": "SigLIP", "clip": "CLIP-L"}
_ALWAYS_READ = {"CLIP-L": 24, "SigLIP": 27}
"""The layer that every connector reads, in the paper's numbers."""
_MODELS = {
    "vicuna-7b": "Vicuna-7B",
    "vicuna-13b": "Vicuna-13B",
    "phi-2": "Phi-2",
    "Yi-34B": "Yi-34B",
    "Llama-3-8B": "Llama3-8B",
    "Llama-3-70B": "Llama3-70B",
}
_DATA = {
    "LLaVA-Pretrain": "LLaVA-1.5",
    "LLaVA-Instruct-150K": "LLaVA-1.5",
    "MGM-Pretrain": "MGM",
    "MGM-Finetune": "MGM",
}
_CONFIGURATION = ("LLM", "tower", "connector", "data", "tuning")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One line of the list: a stage-2 recipe with the stage 1 it needs."""

    recipe: Recipe
    first: Recipe | None
    """Its stage 1, where that is a recipe that ships."""
    scored_only: bool = False
    """This table scores weights that another one lists."""

    @property
    def group(self) -> str:
        """Name of the table that it is listed under."""
        return (self.recipe.paper or "").partition(",")[0]

    @property
    def cells(self) -> tuple[str, ...]:
        """Language model, tower, connector, data of both stages, what is trained."""
        recipe = self.recipe
        data = [_named(part.data.annotations, _DATA) for part in (self.first, recipe) if part]
        tower = _named(recipe.models.vision_tower, _TOWERS)
        second = "+ConvNeXt" if recipe.models.high_resolution_tower else ""
        return (
            _named(recipe.models.language_model, _MODELS),
            tower + second,
            _connector(recipe.connector, _ALWAYS_READ.get(tower)),
            "+".join(dict.fromkeys(data)),
            "LoRA" if recipe.lora else "full",
        )

    @property
    def names(self) -> str:
        """The second line: the recipes."""
        if self.scored_only:
            return f"  {self.recipe.name}"
        return "  " + " -> ".join(part.name for part in (self.first, self.recipe) if part)


def configurations() -> list[Configuration]:
    """Every recipe of stage 2 that ships, by name."""
    recipes = {name: load_recipe(name) for name in recipe_names()}
    second = [recipe for recipe in recipes.values() if recipe.stage == 2]
    return [
        Configuration(recipe=recipe, first=recipes.get(recipe.needs or "")) for recipe in second
    ]


def list_lines(here: Mapping[str, str]) -> list[str]:
    """What `densekit recipes` prints: tables at most 80 characters wide, and sentences.

    `here` has the verdict on runs of this machine, by recipe.
    """
    paper = load_paper()
    rows = configurations()
    tables = {table.name: key for key, table in paper.tables.items()}
    groups = dict.fromkeys([*tables, *sorted({row.group for row in rows} - {""}), ""])
    lines: list[str] = []
    for name in groups:
        members = [row for row in rows if row.group == name]
        if members:
            key = tables.get(name)
            title = (
                f"{name}: {paper.tables[key].title}"
                if key
                else name or "Tiny: data and models are made by densekit"
            )
            lines += [title, *_table_lines(members, key, paper, here), ""]
        elif name in tables and (scored := _scored_only(paper.tables[tables[name]], rows, paper)):
            title = f"{name}: {paper.tables[tables[name]].title}, scores of recipes listed above"
            lines += [title, *_table_lines(scored, tables[name], paper, here), ""]
    recipes = {row.recipe.name for row in rows}
    disagree = [
        _disagreement(conflict, paper)
        for conflict in paper.conflicts
        if conflict.subject in recipes
    ]
    return [
        *lines,
        "The recipe before an arrow is the stage 1 that is needed; `densekit run` trains both.",
        "Layers and groups have the paper's numbers. `densekit show NAME --sources` gives the "
        "source of every value.",
        *LEGEND,
        *([f"{DISAGREE} Sources disagree:", *disagree] if disagree else []),
    ]


def _scored_only(table: Table, rows: list[Configuration], paper: Paper) -> list[Configuration]:
    """Recipes of other tables that this one scores, where no table with recipes of its own has one
    of its columns: it has no training of its own.
    """
    groups = {row.group for row in rows}
    shown = {
        column
        for other in paper.tables.values()
        if other.name in groups
        for column in other.columns
    }
    if shown & {*table.columns}:
        return []
    subjects = {row.recipe for row in table.rows}
    return [replace(row, scored_only=True) for row in rows if row.recipe.name in subjects]


def as_json(here: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every recipe for programs: what it is, its scores by benchmark, and the verdict on runs of
    this machine.
    """
    paper = load_paper()
    fields = ("name", "title", "paper", "stage", "needs")
    recipes = [load_recipe(name) for name in recipe_names()]
    return [
        {field: getattr(recipe, field) for field in fields}
        | {
            "scores": {
                name: score.model_dump(mode="json")
                for name, score in paper.scores(recipe.name).items()
            },
            "here": here.get(recipe.name, NEVER),
        }
        for recipe in recipes
    ]


def _table_lines(
    members: list[Configuration], key: str | None, paper: Paper, here: Mapping[str, str]
) -> Iterator[str]:
    table = paper.tables[key] if key else None
    subjects = [line.subject for line in table.rows] if table else []
    members = sorted(
        members,
        key=lambda row: (subjects.index(row.recipe.name) if subjects else 0, row.recipe.name),
    )
    scores = [
        _column(members, benchmark, key, paper) for benchmark in (table.columns if table else ())
    ]
    # What every row has is a line above the table; a table without it still names its models.
    settings = {name: [row.cells[at] for row in members] for at, name in enumerate(_CONFIGURATION)}
    varying = {name for name, cells in settings.items() if len(set(cells)) > 1} or {"LLM"}
    if alike := [f"{name} {settings[name][0]}" for name in settings if name not in varying]:
        yield f"  every row: {', '.join(alike)}"
    left = _joined([[name, *cells] for name, cells in settings.items() if name in varying], "<")
    verdicts = ["here", *(here.get(row.recipe.name, NEVER) for row in members)]
    verdicts = _joined([verdicts], "<")
    right = _joined([*scores, verdicts], ">")
    narrow = len(left[0]) + 1 + len(right[0]) <= WIDTH
    for index, (setting, numbers) in enumerate(zip(left, right, strict=True)):
        if narrow:
            yield f"{setting} {numbers}".rstrip()
        else:
            yield setting.rstrip()
            yield f"  {numbers}".rstrip()
        if index:
            row = members[index - 1]
            yield row.names


def _joined(columns: list[list[str]], align: Literal["<", ">"]) -> list[str]:
    """The lines of a table, each column as wide as its widest cell."""
    padded = [[f"{cell:{align}{max(map(len, column))}}" for cell in column] for column in columns]
    return [" ".join(line) for line in zip(*padded, strict=True)]


def _column(
    members: list[Configuration], benchmark: str, key: str | None, paper: Paper
) -> list[str]:
    """Title and cells of one column: this table's values, all with the same decimals."""
    scores = [paper.scores(row.recipe.name).get(benchmark) for row in members]
    values = [_cell(score, key) if score else None for score in scores]
    digits = max((decimals(value) for value in values if value is not None), default=0)
    marks = [DISAGREE if score and score.conflict else " " for score in scores]
    cells = ["" if value is None else f"{value:.{digits}f}" for value in values]
    if any(mark == DISAGREE for mark in marks):
        cells = [cell + mark for cell, mark in zip(cells, marks, strict=True)]
    return [paper.benchmarks[benchmark].title, *cells]


def _cell(score: Score, key: str | None) -> Number:
    return score.value if score.conflict else score.sources.get(key or "", score.value)


def _disagreement(conflict: Conflict, paper: Paper) -> str:
    reported: dict[Number, list[str]] = {conflict.take: []}
    for table, value in conflict.values.items():
        reported.setdefault(value, []).append(paper.tables[table].name)
    values = "; ".join(f"{value} ({', '.join(tables)})" for value, tables in reported.items())
    return f"  {conflict.subject}, {paper.benchmarks[conflict.benchmark].title}: taken {values}"


def _connector(connector: Connector, last: int | None) -> str:
    """A connector in the paper's layer numbers: `SCI 8,16,24`, `DCI (1-12)(13-24)`."""
    if connector.kind == "dci":
        return "DCI " + "".join(f"({group[0] + 1}-{group[-1] + 1})" for group in connector.groups)
    if connector.kind == "none":
        return "none"
    layers = [*(layer + 1 for layer in connector.layers), *([last] if last else [])]
    return f"{connector.kind.upper()} {','.join(map(str, layers))}"


def _named(reference: str, names: dict[str, str]) -> str:
    """A short name for a path; what the kit makes is `tiny`."""
    if reference.startswith(MADE_ASSETS):
        return "tiny"
    return next(
        (name for part, name in names.items() if part in reference), reference.rpartition("/")[2]
    )
