"""The list: what is computed on both sides, each item a name and a function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import product
from typing import Any

from tools.unchanged.checkouts import Side
from tools.unchanged.rundirs import read_runs

GOLDEN = "tests/golden"
ENGINES = {"ddp": "0", "zero2": "2", "zero3": "3"}
WORLD_SIZES = (1, 2)
SMALL = (
    "assets.stage1_samples=64",
    "assets.stage2_samples=48",
    "assets.held_out=16",
    "assets.language_model_steps=3",
    "data.samples=null",
)
"""Four steps of stage 1 and six of stage 2: the first step of a schedule has learning rate 0."""
HARDWARE = {
    "paper": (),
    "a100-80g-x8": ("--gpu", "a100-80g", "--gpus", "8"),
    "v100-32g-x8": ("--gpu", "v100-32g", "--gpus", "8"),
    "h200-x3": ("--gpu", "h200", "--gpus", "3"),
    "cpu": ("--device", "cpu"),
}
PRINTED = {"local": ("--launcher", "local", "--device", "cpu"), "slurm": ("--launcher", "slurm")}
TINY = ("tiny_stage1", "tiny_stage2", "tiny_stage2_lora")


@dataclass(frozen=True)
class Item:
    """One line of the summary."""

    name: str
    what: str
    collect: Callable[[Side], Any]


def all_items() -> list[Item]:
    """Everything that is compared, the cheap first."""
    items = [
        Item("recipes", "recipes --json", _list_recipes),
        Item("show", "show --json of every recipe", _show),
    ]
    for name in PRINTED:
        what = "run --print of every recipe: run hashes, commands"
        items.append(Item(f"print/{name}", what, partial(_print, name)))
    for name in HARDWARE:
        what = "plan --json --why of every recipe"
        items.append(Item(f"plan/{name}", what, partial(_plan, name)))
    items.append(Item("certify", "plan --certify of the tiny recipes", _certify))
    for engine, ranks in product(ENGINES, WORLD_SIZES):
        what = "runs of stage 1, stage 2 and LoRA, weights bitwise"
        items.append(Item(f"runs/{engine}-{ranks}", what, partial(_train, engine, ranks)))
    items.append(Item("parity", "every figure of parity --json", _parity))
    return items


def select(names: Sequence[str]) -> list[Item]:
    """The items that a name, the part before a `/`, or a pattern names; all of them without names.

    Raises ValueError for a name that no item has.
    """
    items = all_items()
    if not names:
        return items
    for name in names:
        if not any(_named(item, name) for item in items):
            raise ValueError(f"no item {name}; all: {', '.join(item.name for item in items)}")
    return [item for item in items if any(_named(item, name) for name in names)]


def _named(item: Item, name: str) -> bool:
    return item.name.startswith(f"{name}/") or fnmatchcase(item.name, name)


def _list_recipes(side: Side) -> Any:
    return side.ask(side.place("recipes"), {"all": ["recipes", "--json"]})


def _recipe_names(side: Side, place: str) -> list[str]:
    listed = side.ask(side.place(place), {"all": ["recipes", "--json"]})["all"]["stdout"]
    return [recipe["name"] for recipe in listed]


def _of_every_recipe(side: Side, place: str, verb: str, *options: str) -> Any:
    requests = {name: [verb, name, *options] for name in _recipe_names(side, place)}
    return side.ask(side.place(place), requests)


def _show(side: Side) -> Any:
    return _of_every_recipe(side, "show", "show", "--json")


def _print(launcher: str, side: Side) -> Any:
    return _of_every_recipe(side, f"print-{launcher}", "run", "--print", *PRINTED[launcher])


def _plan(hardware: str, side: Side) -> Any:
    options = ["--json", "--why", *HARDWARE[hardware]]
    return _of_every_recipe(side, f"plan-{hardware}", "plan", *options)


def _small(side: Side, cache: str) -> list[str]:
    sets = [part for value in SMALL for part in ("--set", value)]
    return [*sets, "--device", "cpu", "--cache-dir", str(side.place(cache))]


def _certify(side: Side) -> Any:
    place = side.place("certify")
    options = _small(side, "cache-certify")  # a run says whether its certificate was in the cache
    side.densekit(place, "run", "tiny_stage1", *options, "--launcher", "local")  # makes the data
    return side.ask(place, {name: ["plan", name, *options, "--certify", "--json"] for name in TINY})


def _train(engine: str, ranks: int, side: Side) -> Any:
    """Both stages, then LoRA from the same stage 1; micro-batches of 4: every rank accumulates."""
    place = side.place(f"runs-{engine}-{ranks}")
    options = [*_small(side, "cache"), "--launcher", "local", "--gpus", str(ranks)]
    options += ["--zero-stage", ENGINES[engine], "--micro-batch", "4"]
    side.densekit(place, "run", "tiny_stage2", *options, processes=1 + 2 * ranks)
    side.densekit(place, "run", "tiny_stage2_lora", *options, processes=1 + ranks)
    found = read_runs(side, place / "runs")
    if set(found) != set(TINY):
        raise RuntimeError(f"runs of {sorted(found)}, not of {sorted(TINY)}")
    return found


def _parity(side: Side) -> Any:
    place = side.place("parity")
    return side.ask(place, {"golden": ["parity", str(side.checkout / GOLDEN), "--json"]})
