"""What a recipe may say: the schema of one YAML file under recipes/."""

import re
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from densekit.spec.connector import Connector
from densekit.spec.math import (
    MADE_ASSETS,
    Assets,
    Data,
    Lora,
    Math,
    Models,
    Optimizer,
    Probe,
    Reference,
    Stage,
    mining_problem,
)
from densekit.spec.part import Part, PositiveInt, Seed, has_field
from densekit.spec.types import (
    LEDGER_ENTRIES,
    InitialWeights,
    LedgerEntry,
    Positions,
    Semantics,
    Trains,
)


class RecipeData(Data):
    """A LLaVA-format annotation file with its images, and how samples become tokens and pixels."""

    samples_estimate: PositiveInt | None = None
    """About how many entries it has, where only that is published: lets `plan` estimate time. Not
    part of the math.
    """

    @model_validator(mode="after")
    def _one_count(self) -> "RecipeData":
        if self.samples is not None and self.samples_estimate is not None:
            raise ValueError("`samples` is exact and `samples_estimate` a guess: give one of them")
        return self


class PaperHardware(Part):
    """What the paper trained on. It says what a plan takes by default and never enters the math."""

    gpu: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[0-9]+g)?$")]
    """Name of a GPU in the plan's hardware table, for example a100-40g, v100-32g or cpu."""
    gpus: PositiveInt
    """GPUs of all nodes together."""
    nodes: PositiveInt = 1
    """Machines, with the same number of GPUs each."""

    @model_validator(mode="after")
    def _even(self) -> "PaperHardware":
        if self.gpus % self.nodes:
            raise ValueError(
                f"{self.gpus} GPUs on {self.nodes} nodes: every node has the same number"
            )
        return self


class Recipe(Part):
    """One configuration of one training stage."""

    name: str
    """Run directories are named after it."""
    title: str
    """One line for people."""
    paper: str | None = None
    """Table and row of the paper."""
    stage: Stage
    """1 trains the connector alone, 2 connector and language model."""
    needs: str | None = None
    """The stage-1 recipe whose connector this stage starts from."""
    models: Models
    connector: Connector
    data: RecipeData
    optimizer: Optimizer
    lora: Lora | None = None
    """Adapters instead of the whole language model; null = all weights are trained."""
    global_batch_size: PositiveInt
    """Samples of one optimizer step, on any hardware; when left out, that of `reference`."""
    reference: Reference
    hardware: PaperHardware | None = None
    """What the paper trained on; null = not said."""
    seed: Seed = 42
    """Seeds order, connector, adapters and dropout, each by its own name."""
    semantics: Semantics = "faithful"
    """What the official code computes (faithful), or what it should (fixed), for every ledger entry
    not named.
    """
    ledger: dict[LedgerEntry, Semantics] = Field(default_factory=dict)
    """Entries of docs/upstream.md that differ from `semantics`."""
    positions: Positions = "exact"
    """exact, or bf16: rounded to bf16 before the rotary tables, as the official ZeRO-3 runs in bf16
    very probably did (docs/upstream.md, U12).
    """
    initial_weights: InitialWeights = "exact"
    """exact, or bf16: connector and adapters start rounded to bf16, as in the official bf16 runs
    (docs/upstream.md, U13).
    """
    assets: Assets | None = None
    """What the kit makes itself; null = data and models are given."""
    probe: Probe | None = None
    """Held-out questions at the end; null = none."""
    sources: dict[str, str] = Field(default_factory=dict)
    """Where values are from, by their dotted names; a section speaks for what is in it."""
    notes: tuple[str, ...] = ()
    """Sentences that every plan of the recipe repeats."""

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError(
                "run directories are named after it: up to 100 letters, digits, `.`, `_` and `-`, "
                "a letter or digit first; write `name:` in the recipe (without one the file's own "
                "name is taken)"
            )
        return name

    @model_validator(mode="before")
    @classmethod
    def _batch_of_reference(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("global_batch_size") is None:
            try:
                product = Reference.model_validate(values.get("reference")).global_batch_size
            except ValueError:
                return values  # the field's own error says what is wrong with the reference
            return {**values, "global_batch_size": product}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        r = self.reference
        if r.global_batch_size != self.global_batch_size:
            raise ValueError(
                f"reference {r.gpus} x {r.per_device_batch_size} x {r.grad_accum_steps} = "
                f"{r.global_batch_size} is not global_batch_size {self.global_batch_size}: "
                "change one of them, or omit global_batch_size"
            )
        if self.stage == 1 and (self.needs or self.lora):
            raise ValueError(
                "a stage-1 recipe trains the connector alone: remove `needs` and `lora`"
            )
        if self.data.anyres and not self.connector.is_grid:
            raise ValueError(
                f"connector kind {self.connector.kind} adds tokens that lie in no grid, so the "
                "tiles of image_aspect_ratio anyres cannot be merged (the official code stops "
                "there too): use another kind, or another image_aspect_ratio"
            )
        if (problem := mining_problem(self)) is not None:
            raise ValueError(problem)
        if self.trains_tower and (self.stage == 1 or self.lora):
            what = "with LoRA" if self.lora else "in stage 1"
            raise ValueError(
                f"optimizer.tower_learning_rate trains the vision tower, and {what} it stays "
                "frozen: the tower is trained with the whole language model (stage 2 without "
                "`lora`); omit it"
            )
        if self.stage == 2 and bool(self.needs) == bool(self.models.connector):
            raise ValueError(
                "a stage-2 recipe must say what it starts from: `needs` (the stage-1 recipe) or "
                "`models.connector` (a file with projector weights), one of the two"
            )
        unknown = [key for key in self.sources if not has_field(self, key)]
        if unknown:
            raise ValueError(f"`sources` names fields that do not exist: {', '.join(unknown)}")
        return self

    @property
    def trains(self) -> Trains:
        """What has gradients."""
        return self.math().trains

    @property
    def trains_tower(self) -> bool:
        """Whether the vision tower has gradients too."""
        return self.optimizer.tower_learning_rate is not None

    def semantics_of(self, entry: LedgerEntry) -> Semantics:
        """Which behaviour of a ledger entry this recipe asks for."""
        return self.ledger.get(entry, self.semantics)

    def makes(self, reference: str) -> bool:
        """Whether the kit makes the file or folder behind `reference` itself, when the recipe
        runs.
        """
        return self.assets is not None and reference.startswith(MADE_ASSETS)

    def math(self) -> Math:
        """The part that decides the result; its hash identifies the run.

        `ledger` is written out for every entry, so `semantics` itself is not needed.
        """
        data = Data.model_validate(self.data.model_dump(exclude={"samples_estimate"}))
        shared = {name: getattr(self, name) for name in Math.model_fields if name != "data"}
        ledger = {entry: self.semantics_of(entry) for entry in LEDGER_ENTRIES}
        return Math(**{**shared, "data": data, "ledger": ledger})
