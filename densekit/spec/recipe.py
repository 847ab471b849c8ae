"""What a recipe may say: the schema of one YAML file under recipes/."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Semantics = Literal["faithful", "fixed"]
# The entries of docs/upstream.md whose two behaviours both exist in the code: ids and labels, the
# weight of a token, the tail of an epoch, and what becomes of a batch whose fp16 gradients
# overflow.
LedgerEntry = Literal["L1", "U8", "U9", "L2"]
LEDGER_ENTRIES: tuple[LedgerEntry, ...] = get_args(LedgerEntry)
Capability = Literal[
    "anyres",
    "efficient_dc",
    "tuned_tower",
    "conv_connector",
    "linear_connector",
    "dual_tower",
    "video",
]
"""Parts that rows of the paper need and that densekit does not have yet."""
MADE_ASSETS = "cache:tiny/"
PositiveInt = Annotated[int, Field(gt=0, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
LayerIndex = Annotated[int, Field(ge=0, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]  # what transformers' set_seed takes


class Part(BaseModel):
    """Base of every part of a recipe: unknown keys are errors and values do not change after
    loading.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Models(Part):
    """Where the pretrained models come from: `models:` / `cache:` root references or paths."""

    language_model: str
    """Folder in transformers format: config.json, safetensors weights, tokenizer."""
    vision_tower: str
    """Folder of a CLIP or SigLIP vision model with its preprocessor_config.json."""
    tokenizer: str | None = None
    """Folder of the tokenizer; null = the language model's own folder."""
    connector: str | None = None
    """Projector weights to start from (safetensors with 0.weight, 0.bias, 2.weight, 2.bias);
    null = drawn from the seed in stage 1, taken from the needed run in stage 2."""


class Connector(Part):
    """A connector kind and the hidden_states indices it reads (the paper's layer number is index +
    1).
    """

    kind: Literal["none", "sti", "sci", "dci"]
    """none: the last but one state alone; sti: more tokens; sci: more channels; dci: group means as
    more channels.
    """
    layers: tuple[LayerIndex, ...] = ()
    """sti, sci: the states read beside the last but one, in the order in which they are joined."""
    groups: tuple[tuple[LayerIndex, ...], ...] = ()
    """dci: the states that each group averages, in the order in which groups are joined."""

    @model_validator(mode="after")
    def _kind_takes(self) -> "Connector":
        if (self.kind in ("sti", "sci")) != bool(self.layers):
            raise ValueError(
                f"kind {self.kind} {'needs' if self.kind in ('sti', 'sci') else 'takes no'} `layers`"
            )
        if (self.kind == "dci") != bool(self.groups):
            raise ValueError(
                f"kind {self.kind} {'needs' if self.kind == 'dci' else 'takes no'} `groups`"
            )
        if any(not group for group in self.groups):
            raise ValueError(
                "a group in `groups` is empty: list the hidden_states indices it averages"
            )
        return self


class Data(Part):
    """A LLaVA-format annotation file with its images, and how samples become tokens and pixels."""

    annotations: str
    """The JSON list of samples."""
    images: str
    """Folder that the `image` paths of the samples start from."""
    samples: PositiveInt | None = None
    """Number of entries the annotation file has, where published: lets `plan` count steps without
    the file.
    """
    samples_estimate: PositiveInt | None = None
    """About how many entries it has, where only that is published: lets `plan` estimate time. Not
    part of the math.
    """
    template: Literal["plain", "v1", "llama_3", "chatml_direct", "phi"]
    """How a conversation becomes text."""
    image_aspect_ratio: Literal["square", "pad"]
    """square: as the tower's processor resizes or crops; pad: first padded to a square with the
    mean colour.
    """
    max_length: PositiveInt = 2048
    """Tokens of a sample, its image included, behind which it is cut."""
    group_by_modality_length: bool = False
    """Device batches hold samples of one modality and of similar length."""

    @model_validator(mode="after")
    def _one_count(self) -> "Data":
        if self.samples is not None and self.samples_estimate is not None:
            raise ValueError(
                "`samples` is exact and `samples_estimate` a guess: give one of the two"
            )
        return self


class Optimizer(Part):
    """AdamW with linear warm-up and cosine decay to zero."""

    learning_rate: PositiveFloat
    """Peak rate, after warm-up."""
    connector_learning_rate: PositiveFloat | None = None
    """Peak rate of the connector; null = the same as the rest."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled decay, not on biases and norms."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the first and second moment."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the second moment."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps in which the rate rises from zero."""
    schedule: Literal["cosine"] = "cosine"
    """How the rate falls to zero after warm-up."""
    max_grad_norm: PositiveFloat | None = None
    """Clip the total gradient norm to this; null = no clipping (what the official DeepSpeed configs
    do).
    """
    epochs: PositiveInt = 1
    """Passes over the data."""
    max_steps: PositiveInt | None = None
    """Stop after so many optimiser steps; null = all of them."""


class Lora(Part):
    """LoRA on every Linear of the language model except lm_head."""

    r: PositiveInt
    """Rank of the adapters."""
    alpha: PositiveInt
    """Adapters are scaled by alpha / r."""
    dropout: Fraction = 0.0
    """Dropout in front of the adapters."""


class Reference(Part):
    """The topology the paper used: it defines sample order and loss weights on any hardware."""

    gpus: PositiveInt
    """GPUs of all nodes together."""
    per_device_batch_size: PositiveInt
    """Samples of one device batch: a reference group of the loss."""
    grad_accum_steps: PositiveInt = 1
    """Device batches of one GPU in an optimiser step."""


class Hardware(Part):
    """What the paper trained on. It says what a plan takes by default and never enters the math."""

    gpu: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[0-9]+g)?$")]
    """Name of a GPU in the plan's hardware table, for example a100-40g, v100-32g or cpu."""
    gpus: PositiveInt
    """GPUs of all nodes together."""
    nodes: PositiveInt = 1
    """Machines, with the same number of GPUs each."""

    @model_validator(mode="after")
    def _even(self) -> "Hardware":
        if self.gpus % self.nodes:
            raise ValueError(
                f"{self.gpus} GPUs on {self.nodes} nodes: every node has the same number"
            )
        return self


class Assets(Part):
    """Data, tokenizer and tiny models that the kit makes itself, deterministically, under
    `cache:tiny`.
    """

    kind: Literal["tiny"]
    """What is made: rendered shapes, a small tokenizer, tower and language model."""
    seed: Seed = 0
    """Draws pictures, texts and weights."""
    stage1_samples: PositiveInt
    """Captions."""
    stage2_samples: PositiveInt
    """Conversations."""
    held_out: PositiveInt
    """Questions that are not trained on."""
    language_model_steps: PositiveInt
    """Steps of pretraining on text."""


class Probe(Part):
    """Held-out questions asked after training, with the images in place and shuffled."""

    questions: str
    """An annotation file, one question and its answer per sample."""
    images: str
    """Folder that its `image` paths start from."""


class Recipe(Part):
    """One configuration of one training stage."""

    name: str
    """Run directories are named after it."""
    title: str
    """One line for people."""
    paper: str | None = None
    """Table and row of the paper."""
    stage: Literal[1, 2]
    """1 trains the connector alone, 2 connector and language model."""
    needs: str | None = None
    """The stage-1 recipe whose connector this stage starts from."""
    models: Models
    connector: Connector
    data: Data
    optimizer: Optimizer
    lora: Lora | None = None
    """Adapters instead of the whole language model; null = all weights are trained."""
    global_batch_size: PositiveInt
    """Samples of one optimiser step, on any hardware."""
    reference: Reference
    hardware: Hardware | None = None
    """What the paper trained on; null = not said."""
    seed: Seed = 42
    """Seeds order, connector, adapters and dropout, each by its own name."""
    semantics: Semantics = "faithful"
    """What the official code computes (faithful), or what it should (fixed), for every ledger entry
    not named.
    """
    ledger: dict[LedgerEntry, Semantics] = Field(default_factory=dict)
    """Entries of docs/upstream.md that differ from `semantics`."""
    assets: Assets | None = None
    """What the kit makes itself; null = data and models are given."""
    probe: Probe | None = None
    """Held-out questions at the end; null = none."""
    waits_for: tuple[Capability, ...] = ()
    """What this row needs and densekit lacks: such a recipe is shown and listed, and not run."""
    sources: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError(
                "run directories are named after it: up to 100 letters, digits, `.`, `_` and `-`, a letter or digit "
                "first; write `name:` in the recipe (without one the file's own name is taken)"
            )
        return name

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        r = self.reference
        product = r.gpus * r.per_device_batch_size * r.grad_accum_steps
        if product != self.global_batch_size:
            raise ValueError(
                f"reference {r.gpus} x {r.per_device_batch_size} x {r.grad_accum_steps} = {product} is not "
                f"global_batch_size {self.global_batch_size}: change one of them"
            )
        if self.stage == 1 and (self.needs or self.lora):
            raise ValueError(
                "a stage-1 recipe trains the connector alone: remove `needs` and `lora`"
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

    def semantics_of(self, entry: LedgerEntry) -> Semantics:
        """Which behaviour of a ledger entry this recipe asks for."""
        return self.ledger.get(entry, self.semantics)

    def makes(self, reference: str) -> bool:
        """Whether the kit makes the file or folder behind `reference` itself, when the recipe runs."""
        return self.assets is not None and reference.startswith(MADE_ASSETS)

    def math(self) -> dict[str, Any]:
        """The part that decides the result, as plain JSON values; its hash identifies the run.

        `ledger` is written out for every entry, so `semantics` itself is not needed.
        """
        described = {"title", "paper", "sources", "notes", "semantics", "hardware", "waits_for"}
        values = self.model_dump(mode="json", exclude=described)
        del values["data"]["samples_estimate"]
        values["ledger"] = {entry: self.semantics_of(entry) for entry in LEDGER_ENTRIES}
        return values


def has_field(part: BaseModel, dotted: str) -> bool:
    """Whether `dotted` (as in `optimizer.learning_rate`) names a field of `part`."""
    name, _, rest = dotted.partition(".")
    if name not in type(part).model_fields:
        return False
    value = getattr(part, name)
    return not rest or (isinstance(value, BaseModel) and has_field(value, rest))
