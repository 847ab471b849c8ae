"""The vision-language model: frozen tower, connector, language model, over one packed row of
samples.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GenerationMixin
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import PreTrainedModel

from densekit.model.attention.kernels import IMPLEMENTATIONS
from densekit.model.config import DenseConnectorConfig
from densekit.model.connectors import dense_features
from densekit.model.packing import Segments
from densekit.model.projector import Projector
from densekit.model.towers.tower import VisionTower, vision_config_of
from densekit.spec.types import AttentionKernel


@dataclass
class PackedOutput(ModelOutput):
    """Result of one packed row.

    loss: weighted sum over supervised tokens (0-dim; None without targets); logits: [K, V] at the
    supervised positions.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


class ConnectedLanguageModel(nn.Module):
    """Projector and language model over one packed row: what is trained, and all that an engine has
    to shard.

    Shares its two modules with the model it was taken from, so parameter names are `projector.*`
    and `language_model.*`. The frozen vision tower stays outside: it needs no hooks and no
    gathering.
    """

    def __init__(self, projector: nn.Module, language_model: nn.Module) -> None:
        super().__init__()
        self.projector = projector
        self.language_model: Any = language_model

    def embed_row(
        self, input_ids: Tensor, image_slots: Tensor, feature_index: Tensor, dense_features: Tensor
    ) -> Tensor:
        """Embeddings [T, H] of a flat row.

        input_ids [T] with any valid id in image slots; image_slots [M] positions in the row;
        feature_index [M] the token, of all I*N feature tokens, that fills each slot;
        dense_features [I, N, C]. A row without slots still runs the projector (zero weight), so
        that every rank calls every parameter.
        """
        features = self.projector(dense_features).flatten(0, 1)
        embeddings = self.language_model.get_input_embeddings()(input_ids)
        return embeddings.index_put((image_slots,), features[feature_index].to(embeddings.dtype))

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        cu_seq_lens: Tensor,
        dense_features: Tensor,
        image_slots: Tensor,
        feature_index: Tensor,
        supervised: Tensor,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> PackedOutput:
        """One packed row: T tokens in S segments, K supervised positions.

        input_ids, position_ids [T]; cu_seq_lens [S + 1] int32 with the segment boundaries, 0 first
        and T last (best on the CPU: it is read there); supervised [K] positions whose next token is
        a target; targets [K] ids; weights [K] per-token loss weights (docs/architecture.md, "Why
        sums"). lm_head runs on the K positions only.
        """
        if cu_seq_lens is None:
            raise RuntimeError(
                "a packed row needs cu_seq_lens: without it samples would leak into each other"
            )
        embeddings = self.embed_row(input_ids, image_slots, feature_index, dense_features)
        output = self.language_model(
            inputs_embeds=embeddings[None],
            position_ids=position_ids[None],
            attention_mask=None,
            use_cache=False,
            segments=Segments(cu_seq_lens, embeddings.device),
            logits_to_keep=supervised,
        )
        logits = output.logits[0]
        if targets is None or weights is None:
            return PackedOutput(logits=logits)
        loss = (F.cross_entropy(logits.float(), targets, reduction="none") * weights).sum()
        return PackedOutput(loss=loss, logits=logits)


class DenseConnectorForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A LLaVA-style model whose projector sees several layers of the vision tower."""

    config_class = DenseConnectorConfig
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: DenseConnectorConfig) -> None:
        super().__init__(config)
        spec = config.connector_spec
        last_layer = spec.last_layer(config.tower_layers)
        self.vision_tower = VisionTower(config.vision_config, last_layer)
        width = spec.width(vision_config_of(config.vision_config).hidden_size)
        self.projector = Projector(width, config.text_config.hidden_size)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()
        self.use_kernel("sdpa")

    def use_kernel(self, attention: AttentionKernel) -> None:
        """Compute packed rows with this kernel from now on; model.attention.require_kernel says
        whether it is here.
        """
        self._packed_attention = IMPLEMENTATIONS[attention]
        self.language_model.set_attn_implementation(self._packed_attention)

    def train(self, mode: bool = True) -> "DenseConnectorForConditionalGeneration":
        """Training mode for everything but the tower: it is frozen, dropout included."""
        super().train(mode)
        self.vision_tower.eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Dense features [I, N, C] of normalised images [I, 3, H, W]; the tower is frozen, so no
        graph.
        """
        with torch.no_grad():
            return dense_features(
                self.vision_tower.hidden_states(pixel_values),
                self.config.connector_spec,
                tower_layers=self.config.tower_layers,
            )

    def connected(self) -> ConnectedLanguageModel:
        """The part behind the tower, sharing this model's modules."""
        return ConnectedLanguageModel(self.projector, self.language_model)

    def forward(self, pixel_values: Tensor, **row: Any) -> PackedOutput:
        """One packed row with its images [I, 3, H, W]; the other arguments are
        ConnectedLanguageModel's.
        """
        return self.connected()(dense_features=self.encode_images(pixel_values), **row)

    @contextmanager
    def stock_attention(self, implementation: str = "sdpa") -> Iterator[None]:
        """Use transformers' own attention inside the block (generation, padded batches)."""
        self.language_model.set_attn_implementation(implementation)
        try:
            yield
        finally:
            self.language_model.set_attn_implementation(self._packed_attention)

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self, input_ids: list[Tensor] | Tensor, pixel_values: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Generate from prompts; returns the new token ids [B, L] only.

        input_ids: [B, T] or a list of B prompts [T_b], with config.image_token_id once per image;
        pixel_values [I, 3, H, W] in order of the tags. Other arguments go to the language model's
        generate(). Raises ValueError when tags and images differ in number.
        """
        rows = [self._prompt_pieces(row) for row in input_ids]
        tags = sum(len(row) - 1 for row in rows)
        images = 0 if pixel_values is None else len(pixel_values)
        if tags != images:
            raise ValueError(f"{tags} image tags in the prompts, {images} images given")
        features = iter(
            self.projector(self.encode_images(pixel_values)) if pixel_values is not None else ()
        )
        prompts = [self._join(row, features) for row in rows]
        longest = max(len(prompt) for prompt in prompts)
        embeddings = prompts[0].new_zeros(len(prompts), longest, prompts[0].shape[-1])
        mask = torch.zeros(len(prompts), longest, dtype=torch.long, device=embeddings.device)
        for row, prompt in enumerate(prompts):
            embeddings[row, longest - len(prompt) :] = prompt
            mask[row, longest - len(prompt) :] = 1
        with self.stock_attention():
            return self.language_model.generate(
                inputs_embeds=embeddings, attention_mask=mask, **kwargs
            )

    def _prompt_pieces(self, row: Tensor) -> list[Tensor]:
        tags = (row == self.config.image_token_id).nonzero().flatten().tolist()
        edges = [-1, *tags, len(row)]
        return [row[a + 1 : b] for a, b in itertools.pairwise(edges)]

    def _join(self, pieces: list[Tensor], features: Iterator[Tensor]) -> Tensor:
        embed = self.get_input_embeddings()
        parts = [embed(pieces[0])]
        for piece in pieces[1:]:
            parts += [next(features).to(parts[0].dtype), embed(piece)]
        return torch.cat(parts)
