"""The math of a run: everything that decides its result, as frozen types.

`Recipe.math()` makes it, math.json holds it (as `RunMath`), the trainer reads it back. Its JSON is
hashed and is the run's identity, so a field that is added needs a default that keeps old hashes, or
a new schema number.
"""

from functools import cached_property
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from densekit.files.hashing import json_sha256
from densekit.spec.anyres import AnyRes
from densekit.spec.connector import Connector
from densekit.spec.part import (
    Fraction,
    Number,
    Part,
    PathReference,
    PositiveFloat,
    PositiveInt,
    Seed,
    not_a_flag,
)
from densekit.spec.templates import template_names
from densekit.spec.types import (
    AspectRatio,
    InitialWeights,
    LedgerEntry,
    Positions,
    Semantics,
    Trains,
)

SCHEMA: Literal[2] = 2
"""Of math.json."""
Missing = Literal["refuse", "drop", "replace"]
MISSING_CEILING = 0.01
Stage = Annotated[Literal[1, 2], BeforeValidator(not_a_flag)]
MADE_ASSETS = "cache:tiny/"
"""References that start so are made by the kit itself."""


class Models(Part):
    """Where the pretrained models come from: `models:` / `cache:` root references or paths."""

    language_model: PathReference
    """Folder in transformers format: config.json, safetensors weights, tokenizer."""
    vision_tower: PathReference
    """Folder of a CLIP or SigLIP vision model with its preprocessor_config.json."""
    high_resolution_tower: PathReference | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """Folder of an OpenCLIP ConvNeXt, the second tower of connector.mining, with its weights as
    safetensors (`densekit convert`). Not in the JSON when null: it came after schema 2.
    """
    tokenizer: PathReference | None = None
    """Folder of the tokenizer; null = the language model's own folder."""
    connector: PathReference | None = None
    """Projector weights to start from: a connector.safetensors, or an mm_projector.bin of the
    official code or of LLaVA; null = drawn from the seed in stage 1, taken from the needed run in
    stage 2.
    """

    @property
    def tokenizer_folder(self) -> str:
        """Where the tokenizer is: its own folder, or the language model's."""
        return self.tokenizer or self.language_model


class Data(Part):
    """A LLaVA-format annotation file with its images, and how samples become tokens and pixels."""

    annotations: PathReference
    """The JSON list of samples."""
    images: PathReference
    """Folder that the `image` paths of the samples start from."""
    samples: PositiveInt | None = None
    """Number of entries the annotation file has, where published: lets `plan` count steps without
    the file.
    """
    missing: Missing = Field(default="refuse", exclude_if=lambda value: value == "refuse")
    """Entries whose image is missing or cannot be used: no run; a run without them; or another
    entry, drawn from the seed, in the place of each. Not in the JSON when refuse: it came after
    schema 2.
    """
    missing_ceiling: Fraction = Field(
        default=MISSING_CEILING, exclude_if=lambda value: value == MISSING_CEILING
    )
    """Share of the entries that may be dropped or replaced; with more there is no run."""
    template: str
    """How a conversation becomes text: a module of densekit/text/templates."""
    image_aspect_ratio: AspectRatio
    """square: as the tower's processor resizes or crops; pad: first padded to a square with the
    mean colour; anyres: the whole image and tiles of it.
    """
    anyres: AnyRes | None = Field(default=None, exclude_if=lambda value: value is None)
    """Sizes and order of the tiles of anyres. Not in the JSON when null: it came after schema 2.
    """
    max_length: Annotated[PositiveInt, Field(le=1 << 20)] = 2048
    """Tokens of a sample, its image included, behind which it is cut."""
    group_by_modality_length: bool = False
    """Device batches hold samples of one modality and of similar length."""

    @field_validator("template")
    @classmethod
    def _is_known(cls, template: str) -> str:
        if template not in template_names():
            raise ValueError(f"{template!r} is not one of {', '.join(template_names())}")
        return template

    @model_validator(mode="after")
    def _has_sizes(self) -> "Data":
        if (self.anyres is not None) != (self.image_aspect_ratio == "anyres"):
            needs = "needs" if self.anyres is None else "takes no"
            raise ValueError(
                f"image_aspect_ratio {self.image_aspect_ratio} {needs} data.anyres (pinpoints and "
                "merge: sizes of an image's tiles, and how their tokens are joined)"
            )
        return self


LearningRate = Annotated[Number, Field(gt=0, le=10)]


class Optimizer(Part):
    """AdamW with linear warm-up and cosine decay to zero."""

    learning_rate: LearningRate
    """Peak rate, after warm-up."""
    connector_learning_rate: LearningRate | None = None
    """Peak rate of the connector; null = the same as the rest."""
    tower_learning_rate: LearningRate | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """Peak rate of the vision tower, which is trained where it is given (stage 2, no LoRA); null =
    frozen. Not in the JSON when null: it came after schema 2.
    """
    weight_decay: Annotated[Number, Field(ge=0, le=100)] = 0.0
    """Decoupled decay, not on biases and norms."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of exp_avg and exp_avg_sq."""
    eps: PositiveFloat = 1e-8
    """Added to the root of exp_avg_sq."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps in which the rate rises from zero."""
    schedule: Literal["cosine"] = "cosine"
    """How the rate falls to zero after warm-up."""
    max_grad_norm: PositiveFloat | None = None
    """Clip the total gradient norm to this; null = no clipping (what the official DeepSpeed configs
    do).
    """
    epochs: Annotated[PositiveInt, Field(le=1000)] = 1
    """Passes over the data."""
    max_steps: Annotated[PositiveInt, Field(le=10_000_000)] | None = None
    """Stop after so many optimizer steps; null = all of them."""


class Lora(Part):
    """LoRA on every Linear of the language model except lm_head."""

    r: Annotated[PositiveInt, Field(le=1 << 16)]
    """Rank of the adapters."""
    alpha: Annotated[PositiveInt, Field(le=1 << 20)]
    """Adapters are scaled by alpha / r."""
    dropout: Fraction = 0.0
    """Dropout in front of the adapters."""


class Reference(Part):
    """The reference topology: what the paper used. It fixes sample order and loss weights on any
    hardware.
    """

    gpus: Annotated[PositiveInt, Field(le=1 << 16)]
    """GPUs of all nodes together."""
    per_device_batch_size: Annotated[PositiveInt, Field(le=1 << 16)]
    """Samples of one device batch: a reference group of the loss."""
    grad_accum_steps: Annotated[PositiveInt, Field(le=1 << 16)] = 1
    """Device batches of one GPU in an optimizer step."""

    @property
    def groups_per_step(self) -> int:
        """Reference groups (device batches) of one optimizer step: the G of the loss weights."""
        return self.gpus * self.grad_accum_steps

    @property
    def global_batch_size(self) -> int:
        """Samples of one optimizer step."""
        return self.groups_per_step * self.per_device_batch_size


class Assets(Part):
    """Data, tokenizer and tiny models that the kit makes itself, deterministically, under
    `cache:tiny`.
    """

    kind: Literal["tiny"]
    """What is made: rendered shapes, a small tokenizer, tower and language model."""
    seed: Seed = 0
    """Draws pictures, texts and weights."""
    stage1_samples: Annotated[PositiveInt, Field(le=10**6)]
    """Captions."""
    stage2_samples: Annotated[PositiveInt, Field(le=10**6)]
    """Conversations."""
    held_out: Annotated[PositiveInt, Field(le=10**6)]
    """Questions that are not trained on."""
    language_model_steps: Annotated[PositiveInt, Field(le=10**6)]
    """Steps of pretraining on text."""


class Probe(Part):
    """Held-out questions asked after training, with the images in place and shuffled."""

    questions: PathReference
    """An annotation file, one question and its answer per sample."""
    images: PathReference
    """Folder that its `image` paths start from."""


class Math(Part):
    """The hashed part of a recipe. Two runs of equal math compute the same on any hardware."""

    name: str
    """The recipe's."""
    stage: Stage
    """1 trains the connector alone, 2 connector and language model."""
    needs: str | None
    """The stage-1 recipe whose connector this stage starts from."""
    models: Models
    connector: Connector
    data: Data
    optimizer: Optimizer
    lora: Lora | None
    """Adapters instead of the whole language model; null = all weights are trained."""
    global_batch_size: PositiveInt
    """Samples of one optimizer step, on any hardware: that of the reference topology."""
    reference: Reference
    seed: Seed
    """Seeds order, connector, adapters and dropout, each by its own name."""
    ledger: dict[LedgerEntry, Semantics]
    """The behaviour of every entry of docs/upstream.md."""
    positions: Positions = Field(default="exact", exclude_if=lambda value: value == "exact")
    """What rotary tables are computed from. Not in the JSON when exact: it came after schema 2."""
    initial_weights: InitialWeights = Field(
        default="exact", exclude_if=lambda value: value == "exact"
    )
    """Of connector and adapters. Not in the JSON when exact: it came after schema 2."""
    assets: Assets | None
    """What the kit makes itself; null = data and models are given."""
    probe: Probe | None
    """Held-out questions at the end; null = none."""

    @model_validator(mode="after")
    def _two_towers(self) -> "Math":
        problem = mining_problem(self)
        if problem is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _one_batch(self) -> "Math":
        if self.global_batch_size != self.reference.global_batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not that of the reference "
                f"topology, {self.reference.global_batch_size}"
            )
        return self

    @property
    def trains(self) -> Trains:
        """What has gradients."""
        return "connector" if self.stage == 1 else "lora" if self.lora else "full"

    @property
    def trains_tower(self) -> bool:
        """Whether the vision tower has gradients too."""
        return self.optimizer.tower_learning_rate is not None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; their hash identifies what is computed."""
        return self.model_dump(mode="json")


class RunMath(Part):
    """math.json: what one run computes, from which files and from which run. It never changes."""

    schema_: Literal[2] = Field(default=SCHEMA, alias="schema")
    recipe: Math
    starts_from: str | None
    """Hash of the stage-1 run whose connector this one starts from."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the files that are read, by what they are."""

    def as_json(self) -> dict[str, Any]:
        """What math.json holds."""
        return self.model_dump(mode="json", by_alias=True)

    @cached_property
    def sha256(self) -> str:
        """The hash that is the run's identity."""
        return json_sha256(self.as_json())


class _HasTowers(Protocol):
    """Math, and a recipe."""

    @property
    def models(self) -> Models: ...
    @property
    def connector(self) -> Connector: ...
    @property
    def data(self) -> Data: ...
    @property
    def optimizer(self) -> Optimizer: ...


def mining_problem(given: _HasTowers) -> str | None:
    """Why mining and the second tower do not go with the rest; None where they do."""
    tower = given.models.high_resolution_tower
    if given.connector.mining is None:
        return (
            None
            if tower is None
            else "models.high_resolution_tower is read by connector.mining (image_size, window, "
            "drop_path), and the connector has none: write it, or omit the tower"
        )
    if tower is None:
        return (
            "connector.mining needs models.high_resolution_tower, the folder of an OpenCLIP "
            "ConvNeXt: name it, or omit connector.mining"
        )
    if given.data.anyres is not None:
        return (
            "connector.mining sees one view of an image, and image_aspect_ratio anyres has "
            "several: omit one of them"
        )
    if given.optimizer.tower_learning_rate is not None:
        return (
            "connector.mining stands behind frozen towers: omit optimizer.tower_learning_rate, or "
            "the mining"
        )
    return None
