"""Architectures of a recipe's models, without torch: from config.json where the folder is there,
else from a table.

Counts of parameters are those of the modules that densekit builds (densekit/model): the tower
without the blocks that the connector does not read and without its last norm and head.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from densekit.errors import DataError, UsageError
from densekit.files.json_files import read_object
from densekit.spec.anyres import AnyRes
from densekit.spec.config_numbers import CONFIG, config_number
from densekit.spec.connector import Connector
from densekit.spec.math import Math
from densekit.spec.mining import CONV_TOWERS, ConvTower, read_conv_tower
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from densekit.spec.vision import PHOTOGRAPH, ImageLayout, check_anyres


class UnknownShapeError(UsageError):
    """A model that may well train, but whose shape is not known."""


Shape = TypeVar("Shape")


@dataclass(frozen=True, kw_only=True)
class LanguageShape:
    """A decoder-only language model of transformers' Llama or Phi classes."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    gated: bool = True
    """Llama: SwiGLU, three matrices in the MLP; Phi: GELU, two."""
    biased: bool = False
    """Phi: every Linear and every norm has a bias, lm_head too."""
    parallel: bool = False
    """Phi: attention and MLP read the same single norm of a layer and are added together."""
    tied: bool = False
    """lm_head and the embedding are one matrix."""

    @property
    def query_width(self) -> int:
        """Channels of all query heads."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Channels of all key heads, which are those of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> tuple[tuple[str, int, int], ...]:
        """(name, inputs, outputs) of every Linear of one layer."""
        hidden, inner = self.hidden, self.intermediate
        attention = (
            ("q", hidden, self.query_width),
            ("k", hidden, self.kv_width),
            ("v", hidden, self.kv_width),
            ("o", self.query_width, hidden),
        )
        if self.gated:
            return (
                *attention,
                ("gate", hidden, inner),
                ("up", hidden, inner),
                ("down", inner, hidden),
            )
        return (*attention, ("up", hidden, inner), ("down", inner, hidden))

    @property
    def layer_linear_parameters(self) -> int:
        """Matrices of one layer, without biases."""
        return sum(inputs * outputs for _, inputs, outputs in self.linears)

    @property
    def layer_parameters(self) -> int:
        """All parameters of one layer: matrices, biases, norms."""
        norms = (1 if self.parallel else 2) * self.norm_parameters
        biases = sum(outputs for *_, outputs in self.linears) if self.biased else 0
        return self.layer_linear_parameters + biases + norms

    @property
    def norm_parameters(self) -> int:
        """One norm: RMSNorm has a weight, LayerNorm also a bias."""
        return self.hidden * (2 if self.biased else 1)

    @property
    def embedding_parameters(self) -> int:
        """The input embedding."""
        return self.vocab * self.hidden

    @property
    def head_parameters(self) -> int:
        """lm_head, where it is a matrix of its own."""
        bias = self.vocab if self.biased else 0
        return bias + (0 if self.tied else self.vocab * self.hidden)

    @property
    def parameters(self) -> int:
        """All parameters, a tied matrix once."""
        ends = self.embedding_parameters + self.norm_parameters + self.head_parameters
        return self.layers * self.layer_parameters + ends

    def lora_parameters(self, r: int) -> int:
        """Adapters of rank `r` on every Linear of the layers (densekit.train.lora)."""
        return self.layers * sum(r * (inputs + outputs) for _, inputs, outputs in self.linears)


@dataclass(frozen=True, kw_only=True)
class TowerShape:
    """A CLIP or SigLIP vision model; `layers` counts those of the pretrained tower, read or not."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    image_size: int
    patch_size: int
    has_cls: bool
    """CLIP: a CLS token and a norm before the blocks, no bias in the patch embedding. SigLIP: the
    other way round.
    """

    @property
    def patches(self) -> int:
        """Patch tokens of an image, without CLS."""
        return int(self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of an image inside the tower."""
        return self.patches + self.has_cls

    @property
    def block_parameters(self) -> int:
        """One block: four square matrices, two of the MLP, their biases, two LayerNorms."""
        hidden, inner = self.hidden, self.intermediate
        return 4 * hidden * (hidden + 1) + 2 * hidden * inner + inner + hidden + 4 * hidden

    @property
    def embedding_parameters(self) -> int:
        """Patch and position embedding, CLS and the norm before the blocks."""
        patch = 3 * self.patch_size**2 * self.hidden
        ends = self.hidden + 2 * self.hidden if self.has_cls else self.hidden
        return patch + self.tokens * self.hidden + ends


@dataclass(frozen=True, kw_only=True)
class ConnectorShape:
    """What the connector reads of the tower, and what it hands to the language model."""

    last_layer: int
    """Blocks of the tower that run; later ones are not built."""
    image_tokens: int
    """Feature tokens of the image that has most, as its sequence has them."""
    typical_tokens: int
    """Of an average image."""
    min_tokens: int
    """Of the image that has fewest."""
    views: int
    """Views of the image that has most."""
    typical_views: int
    """Of an average image."""
    features: int
    """Tokens of all views that the frozen part hands over."""
    projected: int
    """Tokens of all views that pass the projector."""
    newline: bool
    """Whether rows of views end in a newline vector."""
    width: int
    """Channels that the projector reads."""
    feature_width: int
    """Channels of what the frozen part hands over."""
    learned: int
    """Parameters of its trainable modules."""
    connector: Connector
    layout: ImageLayout
    """How an image becomes views and tokens."""
    states: int
    """Hidden states, or running sums of them, that are alive until they are joined."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Language model, tower and connector of a recipe."""

    language: LanguageShape
    tower: TowerShape
    connector: ConnectorShape
    high_resolution: ConvTower | None = None
    """The second tower, where the connector mines."""

    @property
    def pixels(self) -> int:
        """Pixels a side of an image's view as it is read."""
        mining = self.connector.connector.mining
        return self.tower.image_size if mining is None else mining.image_size

    @property
    def windows(self) -> int:
        """Numbers that the high-resolution tower hands over of an image."""
        mining = self.connector.connector.mining
        if mining is None or self.high_resolution is None:
            return 0
        return self.tower.patches * mining.window**2 * self.high_resolution.channels

    @property
    def image_tokens(self) -> int:
        """Tokens that one image puts into its sequence."""
        return self.connector.image_tokens

    @property
    def tower_parameters(self) -> int:
        """Parameters of the towers that are built."""
        blocks = self.connector.last_layer * self.tower.block_parameters
        second = 0 if self.high_resolution is None else self.high_resolution.parameters
        return self.tower.embedding_parameters + blocks + second

    @property
    def mining_parameters(self) -> int:
        """Parameters of patch info mining."""
        if self.high_resolution is None:
            return 0
        channels = self.high_resolution.channels
        return self.connector.connector.mining_parameters(self.tower.hidden, channels)

    @property
    def projector_parameters(self) -> int:
        """Two Linear layers with biases, the connector's trainable modules, and mining."""
        hidden = self.language.hidden
        linears = (self.connector.width + 1) * hidden + (hidden + 1) * hidden
        return linears + self.connector.learned + self.mining_parameters

    @property
    def parameters(self) -> int:
        """Everything that is built."""
        return self.tower_parameters + self.projector_parameters + self.language.parameters


def _llama(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocab: int
) -> LanguageShape:
    return LanguageShape(
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        vocab=vocab,
    )


LANGUAGE_MODELS = {
    "microsoft/phi-2": LanguageShape(
        hidden=2560,
        intermediate=10240,
        layers=32,
        heads=32,
        kv_heads=32,
        head_dim=80,
        vocab=51200,
        gated=False,
        biased=True,
        parallel=True,
    ),
    "lmsys/vicuna-7b-v1.5": _llama(4096, 11008, 32, 32, 32, 32000),
    "lmsys/vicuna-13b-v1.5": _llama(5120, 13824, 40, 40, 40, 32000),
    "meta-llama/Meta-Llama-3-8B-Instruct": _llama(4096, 14336, 32, 32, 8, 128256),
    "NousResearch/Nous-Hermes-2-Yi-34B": _llama(7168, 20480, 60, 56, 8, 64000),
    "meta-llama/Meta-Llama-3-70B-Instruct": _llama(8192, 28672, 80, 64, 8, 128256),
    "tiny/language_model": _llama(128, 352, 3, 4, 4, 512),
}
"""The paper's language models, from their published config.json, and the tiny one
(densekit/toy/models.py).
"""
TOWERS = {
    "openai/clip-vit-large-patch14-336": TowerShape(
        hidden=1024,
        intermediate=4096,
        layers=24,
        heads=16,
        image_size=336,
        patch_size=14,
        has_cls=True,
    ),
    "google/siglip-so400m-patch14-384": TowerShape(
        hidden=1152,
        intermediate=4304,
        layers=27,
        heads=16,
        image_size=384,
        patch_size=14,
        has_cls=False,
    ),
    "tiny/vision_tower": TowerShape(
        hidden=96, intermediate=192, layers=6, heads=4, image_size=56, patch_size=8, has_cls=True
    ),
}


_SMALL = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
}
TOWER_DEFAULTS = {"clip": _SMALL | {"patch_size": 32}, "siglip": _SMALL | {"patch_size": 16}}
"""What transformers takes for what a vision configuration leaves out, by how its model type
begins.
"""
MISTRAL_KV_HEADS = 8
"""What transformers takes where a Mistral's config.json does not say; elsewhere all heads."""


def shape_of(recipe: Recipe | Math, roots: Roots | None = None) -> ModelShape:
    """The shapes of the recipe's models, from the folders under `roots` where they are, else from
    the table.

    Raises UsageError for a model that is neither there nor in the table, or of a type that densekit
    does not train; DataError for a config.json that cannot be read.
    """
    language = language_shape(recipe.models.language_model, roots)
    tower = tower_shape(recipe.models.vision_tower, roots)
    return ModelShape(
        language=language,
        tower=tower,
        connector=connector_shape(recipe.connector, tower, recipe.data.anyres),
        high_resolution=conv_shape(recipe.models.high_resolution_tower, roots),
    )


def connector_shape(
    connector: Connector, tower: TowerShape, anyres: AnyRes | None = None
) -> ConnectorShape:
    """A recipe's connector on this tower. Raises UsageError for a layer that the tower lacks, for
    patches that cannot be reduced, and for tiles that are not of the tower's size.
    """
    last = connector.last_layer(tower.layers)
    if last > tower.layers:
        raise UsageError(
            f"connector: hidden_states[{last}] does not exist in a vision tower of {tower.layers} "
            "layers"
        )
    try:
        connector.check_patches(tower.patches)
        check_anyres(anyres, connector, tower.image_size)
    except ValueError as error:
        raise UsageError(f"connector: {error}") from None
    layout = ImageLayout(
        patches=tower.patches, connector=connector, anyres=anyres, tile=tower.image_size
    )
    return ConnectorShape(
        last_layer=last,
        features=layout.max_tiles * connector.features(tower.patches),
        projected=layout.max_tiles * connector.projected(tower.patches),
        image_tokens=layout.max_tokens,
        typical_tokens=layout.tokens(PHOTOGRAPH),
        min_tokens=layout.min_tokens,
        views=layout.max_tiles,
        typical_views=layout.tiles(PHOTOGRAPH),
        newline=anyres is not None and anyres.has_newline,
        width=connector.width(tower.hidden),
        feature_width=connector.feature_width(tower.hidden),
        learned=connector.learned_parameters(tower.hidden),
        connector=connector,
        layout=layout,
        states=connector.states_alive,
    )


def language_shape(reference: str, roots: Roots | None) -> LanguageShape:
    """The shape of one language model; errors as shape_of."""
    config = _read_config(reference, roots)
    if config is None:
        return _known(reference, LANGUAGE_MODELS, "models.language_model")
    kind = config.get("model_type")
    if kind not in ("llama", "mistral", "phi"):
        raise UnknownShapeError(
            f"models.language_model: {reference}/{CONFIG} has model_type {kind or 'null'}; "
            "densekit knows the shapes of llama, mistral and phi"
        )
    heads = config_number(config, "num_attention_heads", reference)
    hidden = config_number(config, "hidden_size", reference)
    phi = kind == "phi"
    return LanguageShape(
        hidden=hidden,
        intermediate=config_number(config, "intermediate_size", reference),
        layers=config_number(config, "num_hidden_layers", reference),
        heads=heads,
        kv_heads=config_number(
            config,
            "num_key_value_heads",
            reference,
            MISTRAL_KV_HEADS if kind == "mistral" else heads,
        ),
        head_dim=config_number(config, "head_dim", reference, hidden // heads),
        vocab=config_number(config, "vocab_size", reference),
        gated=not phi,
        biased=phi,
        parallel=phi,
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def tower_shape(reference: str, roots: Roots | None) -> TowerShape:
    """The shape of one vision tower; errors as shape_of."""
    config = _read_config(reference, roots)
    if config is None:
        return _known(reference, TOWERS, "models.vision_tower")
    kind = config.get("model_type")
    config = config.get("vision_config", config)
    if not isinstance(config, dict):
        raise DataError(f"{reference}/{CONFIG}: vision_config must be an object")
    if kind not in ("clip", "clip_vision_model", "siglip", "siglip_vision_model"):
        raise UsageError(
            f"models.vision_tower: {reference}/{CONFIG} has model_type {kind or 'null'}; densekit "
            "trains with clip and siglip"
        )
    names = {
        "hidden": "hidden_size",
        "intermediate": "intermediate_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "image_size": "image_size",
        "patch_size": "patch_size",
    }
    defaults = TOWER_DEFAULTS[kind.partition("_")[0]]
    values = {
        field: config_number(config, key, reference, defaults[key]) for field, key in names.items()
    }
    if values["patch_size"] > values["image_size"]:
        raise DataError(
            f"{reference}/{CONFIG}: patch_size {values['patch_size']} is larger than image_size "
            f"{values['image_size']}: an image would have no patch; correct the file, or fetch it "
            "again"
        )
    return TowerShape(**values, has_cls=kind.startswith("clip"))


def conv_shape(reference: str | None, roots: Roots | None) -> ConvTower | None:
    """The size of the second tower, by its weights where they are here; None without one. Errors as
    shape_of.
    """
    if reference is None:
        return None
    folder = (roots or Roots()).resolve(reference)
    if any(folder.glob("*.safetensors")):
        return read_conv_tower(folder)
    return _known(reference, CONV_TOWERS, "models.high_resolution_tower")


def _read_config(reference: str, roots: Roots | None) -> dict[str, Any] | None:
    """config.json behind a reference; None when its folder does not hold one."""
    path = (roots or Roots()).resolve(reference) / CONFIG
    return read_object(path) if path.is_file() else None


def _known(reference: str, table: dict[str, Shape], field: str) -> Shape:
    """The table's entry for the last two parts of a reference."""
    name = "/".join(Path(reference.partition(":")[2] or reference).parts[-2:])
    if name not in table:
        raise UnknownShapeError(
            f"{field}: {reference} holds no {CONFIG}, and its shape is not known; put the model "
            "there, give the root of its folder with --models-dir, or use one of: "
            f"{', '.join(sorted(table))}"
        )
    return table[name]
