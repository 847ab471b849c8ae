"""What is checked before a run directory exists: one pass over everything a run reads, which fills
one list of problems.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densekit.data.images import Images
from densekit.data.missing import choose_entries
from densekit.errors import DataError, DensekitError
from densekit.files.hashing import file_sha256
from densekit.launch.checks.models import (
    language_model_problems,
    projector_problems,
    second_problems,
    tower_problems,
)
from densekit.launch.checks.samples import (
    deep_problem,
    held_out_problems,
    image_problem,
    look_at,
    outside_problem,
)
from densekit.launch.checks.tokens import tokenizer_problems
from densekit.launch.connector_conversion import awaits_conversion
from densekit.launch.fetching import by_hand, fetches
from densekit.runs.connector_weights import connector_weights
from densekit.spec.architectures import connector_shape
from densekit.spec.check import Check, CheckState
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What was found about one recipe."""

    checks: tuple[Check, ...]
    """A line per subject where it is good, one per problem where it is not; named `RECIPE:
    SUBJECT`.
    """
    inputs: dict[str, str]
    """SHA-256 of the files that belong to the run's identity (annotations, connector weights)."""
    outside: str | None
    """Where images are that a container would not see."""


def preflight(recipe: Recipe, roots: Roots, *, asked: str | None = None) -> Preflight:
    """Check everything a run of `recipe` reads, short of decoding images and loading weights.

    `asked`: the recipe that was asked for and what was --set, as words of a command line, where
    that is not the recipe's name alone.

    What the kit makes itself (recipes with `assets`) is not there yet and not checked. Raises
    nothing for what is wrong: `spec.check.refuse` does.
    """
    models, data = recipe.models, recipe.data
    found = _Found(recipe, roots, asked or recipe.name)
    config: dict[str, object] = {}
    hidden = width = None
    if not recipe.makes(models.language_model):
        problems, config = language_model_problems(
            roots.resolve(models.language_model),
            "models.language_model",
            found.get("models.language_model"),
        )
        found.add("language model", problems)
        size = config.get("hidden_size") or config.get("n_embd")
        hidden = size if isinstance(size, int) else None
    if not recipe.makes(models.vision_tower):
        field = "models.vision_tower"
        problems, tower = tower_problems(models.vision_tower, roots, field, found.get(field))
        if tower is not None:
            try:
                width = connector_shape(recipe.connector, tower, data.anyres).width
            except DensekitError as error:
                problems.append(str(error))
        found.add("vision tower", problems)
    if models.high_resolution_tower is not None:
        field = "models.high_resolution_tower"
        second = roots.resolve(models.high_resolution_tower)
        found.add("high-resolution tower", second_problems(second, field, found.get(field)))
    folder = roots.resolve(models.tokenizer_folder)
    if not recipe.makes(models.tokenizer_folder) and (models.tokenizer or folder.exists()):
        problems, note = tokenizer_problems(recipe, folder, config)
        found.add("tokenizer", problems)
        if note:
            found.say("tokenizer", "warn", note)
    if models.connector:
        weights = roots.resolve(models.connector)
        found.connector(weights, width=width, hidden=hidden)
        if weights.is_file():
            found.inputs["connector"] = file_sha256(weights)
    outside = None
    if not recipe.makes(data.annotations):
        samples = look_at(recipe, roots, found.get("data.annotations"))
        found.add("annotations", samples.problems)
        if samples.note:
            found.say("annotations", "warn", samples.note)
        if samples.sha256:
            found.inputs["annotations"] = samples.sha256
        if samples.images:
            found.images(samples.images, samples.count)
            outside = outside_problem(samples.images, roots, recipe)
            if samples.images.deep:
                fixed = recipe.semantics_of("L1") == "fixed"
                found.say("images", "fail" if fixed else "warn", deep_problem(samples.images))
    if recipe.probe and not recipe.makes(recipe.probe.questions):
        found.add("held-out questions", held_out_problems(recipe, roots))
    if not found.checks:
        found.checks.append(
            Check(name=recipe.name, state="ok", message="data and models are made by densekit")
        )
    return Preflight(checks=tuple(found.checks), inputs=found.inputs, outside=outside)


def _folders(roots: Roots) -> str:
    """The options for folders that are not where they are without any."""
    usual = Roots()
    options = []
    if roots.data != usual.data:
        options += ["--data-dir", str(roots.data)]
    if roots.models != usual.models:
        options += ["--models-dir", str(roots.models)]
    return f" {shlex.join(options)}" if options else ""


class _Found:
    """The list that the pass fills."""

    def __init__(self, recipe: Recipe, roots: Roots, asked: str) -> None:
        self.checks: list[Check] = []
        self.inputs: dict[str, str] = {}
        self._recipe, self._roots, self._asked = recipe, roots, asked

    def say(self, subject: str, state: CheckState, message: str) -> None:
        """A line about a subject."""
        name = f"{self._recipe.name}: {subject}"
        self.checks.append(Check(name=name, state=state, message=message))

    def add(self, subject: str, problems: Sequence[str]) -> None:
        """What was found about a subject: good when there is no problem."""
        for problem in problems:
            self.say(subject, "fail", problem)
        if not problems:
            self.say(subject, "ok", "complete")

    def connector(self, weights: Path, *, width: int | None, hidden: int | None) -> None:
        """Weights of a connector, or what they are converted into when the run starts."""
        field = "models.connector"
        try:
            if weights.is_file() and awaits_conversion(weights, self._roots.cache):
                self.say("connector", "ok", f"{weights} is converted when the run starts")
                return
            weights = connector_weights(weights, self._roots.cache)
        except DataError as error:
            self.add("connector", [f"{field}: {error}"])
            return
        self.add("connector", projector_problems(weights, width=width, hidden=hidden, field=field))

    def images(self, images: Images, count: int) -> None:
        """Bad images are problems, or what the recipe's policy makes of them."""
        recipe = self._recipe
        where = self._roots.resolve(recipe.data.annotations)
        if recipe.data.missing == "refuse":
            if (problem := image_problem(recipe, images, where, self._roots.cache)) is None:
                self.say("images", "ok", "complete")
            else:
                policy = "`data.missing: drop` or `replace` in a recipe trains without them"
                if fetches(recipe, "data.annotations", self._roots):
                    policy = f"{self.get('data.annotations')}; {policy}"
                self.say("images", "fail", f"{problem}; {policy}")
            return
        try:
            chosen = choose_entries(recipe.math().data, images, count=count, seed=recipe.seed)
        except DataError as error:
            self.say("images", "fail", str(error))
            return
        self.inputs["missing"] = chosen.sha256
        if chosen.bad:
            self.say("images", "warn", f"data.missing: {chosen.describe()}")
        else:
            self.say("images", "ok", "complete")

    def get(self, field: str) -> str:
        """The command that gets what a field of the recipe refers to."""
        models = self._roots.resolve(self._recipe.models.language_model)
        if models.is_relative_to(self._roots.cache) and (way := by_hand(self._recipe)):
            return way
        if fetches(self._recipe, field, self._roots):
            return (
                f"`densekit fetch {self._asked}{_folders(self._roots)}` gets what is missing, or "
                "add --fetch to `densekit run`"
            )
        if field == "data.annotations":
            return "give the path of a JSON file"
        return "download it there in transformers format"
