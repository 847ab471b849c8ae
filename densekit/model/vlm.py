"""The vision-language model: frozen tower, connector, projector, language model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationMixin,
)
from transformers.modeling_utils import PreTrainedModel

from densekit.model.attention import KERNELS
from densekit.model.config import DenseConnectorConfig
from densekit.model.connectors import dense_features
from densekit.model.frames import TaggedFrames, of_tags
from densekit.model.generation import left_padded
from densekit.model.micro_batch import MicroBatch
from densekit.model.newline import ImageNewline
from densekit.model.projector import Projector
from densekit.model.tiles import in_order
from densekit.model.towers import make_tower, vision_config_of
from densekit.model.towers.convnext import HighResolutionTower
from densekit.model.trainable_part import PackedOutput, TrainablePart
from densekit.spec.types import AttentionKernel
from densekit.spec.vision import VIEWS_PER_PASS


class DenseConnectorForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A LLaVA-style model whose projector sees several layers of the vision tower.

        pixel_values [I, 3, H, W]
            -> vision_tower, block by block -> hidden_states[0], [1], ... [I, P, D]
            -> frozen half of the connector -> dense_features [I, N, C]         encode_images
           (-> high_resolution_tower -> windows [I, P, W, A]                    windows_of)
            -> projector, and what the connector trains -> image slots of the
               token embeddings [T, H]                                          trainable_part
            -> language_model -> logits at label positions [K, V] -> loss       trainable_part

    I images, P patch tokens of D channels, N feature tokens of C channels, T tokens of hidden size
    H, K label positions, V vocabulary; where the connector mines, W positions of A channels lie in
    the window of each patch.
    """

    config_class = DenseConnectorConfig
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: DenseConnectorConfig) -> None:
        super().__init__(config)
        spec = config.connector_spec
        last_layer = spec.last_layer(config.tower_layers)
        self.vision_tower = make_tower(config.vision_config, last_layer)
        width = vision_config_of(config.vision_config).hidden_size
        conv = config.high_resolution_config
        self.high_resolution_tower = None if conv is None else HighResolutionTower(conv)
        self.projector = Projector(
            spec,
            width,
            config.text_config.hidden_size,
            window_channels=config.window_channels,
        )
        self.language_model = AutoModelForCausalLM.from_config(
            config.text_config, trust_remote_code=False
        )
        anyres = config.anyres_spec
        has_newline = anyres is not None and anyres.has_newline
        hidden_size = config.text_config.hidden_size
        self.image_newline = ImageNewline(hidden_size) if has_newline else None
        # Past nn.Module's bookkeeping: as a submodule it would give every weight a second name.
        self.__dict__["trainable_part"] = TrainablePart(
            self.projector, self.language_model, self.image_newline
        )
        self.post_init()
        self.use_kernel("sdpa")

    trainable_part: TrainablePart
    """Projector and language model, and a trained tower: what an engine wraps."""

    def replace_language_model(self, language_model: PreTrainedModel) -> None:
        """Take one with loaded weights in the place of the one that the configuration built."""
        self.language_model = self.trainable_part.language_model = language_model
        self.language_model.set_attn_implementation(self._packed_attention)
        self.config.text_config = language_model.config

    def set_newline(self, value: Tensor) -> None:
        """Take the values [H] of the newline vector, whose parameter is on the meta device."""
        assert self.image_newline is not None
        self.image_newline.weight = nn.Parameter(value.clone())

    def use_kernel(self, kernel: AttentionKernel) -> None:
        """Compute micro-batches with this kernel from now on; model.attention.require_kernel says
        whether it is here.
        """
        self._packed_attention = KERNELS[kernel].name
        self.language_model.set_attn_implementation(self._packed_attention)

    def checkpoint_activations(self) -> None:
        """Recompute the language model's activations in backward, block by block."""
        language_model = self.language_model
        # Older releases of transformers 5 have the second name alone.
        enable = getattr(language_model, "activation_checkpointing_enable", None)
        enable = enable or language_model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        if self.trainable_part.vision_tower is not None:
            self.vision_tower.checkpoint_activations()
        # The embeddings need a graph, or nothing inside a checkpointed block would have one
        # (stage 1, LoRA).
        language_model.enable_input_require_grads()

    def train(self, mode: bool = True) -> "DenseConnectorForConditionalGeneration":
        """Training mode for everything but a frozen vision tower, dropout included; stochastic
        depth is on in a high-resolution tower that has any (connector.mining.drop_path).
        """
        super().train(mode)
        self.vision_tower.eval()
        self.trainable_part.train(mode)
        return self

    def train_tower(self) -> None:
        """Train the vision tower with the rest: an engine then wraps it too."""
        self.vision_tower.requires_grad_(True)
        self.trainable_part.train_tower(self.vision_tower, self._dense_features)

    @property
    def embedding_rows(self) -> int:
        """Tokens that the language model has an embedding for."""
        return int(self.language_model.get_input_embeddings().weight.shape[0])

    def get_input_embeddings(self) -> nn.Module:
        embeddings: nn.Module = self.language_model.get_input_embeddings()
        return embeddings

    def low_resolution(self, pixel_values: Tensor) -> Tensor:
        """Normalised images [I, 3, S, S] at the vision tower's size: themselves, or what the
        high-resolution tower sees, interpolated.
        """
        if self.high_resolution_tower is None:
            return pixel_values
        size = int(vision_config_of(self.config.vision_config).image_size)
        if pixel_values.shape[-1] == size:
            return pixel_values
        low: Tensor = F.interpolate(
            pixel_values.float(), size=(size, size), mode="bilinear", align_corners=False
        )
        return low.to(pixel_values.dtype)

    def windows_of(self, pixel_values: Tensor) -> Tensor | None:
        """The windows of every patch [I, P, W, A] of normalised images [I, 3, S, S], without a
        graph; None without a high-resolution tower. Raises ValueError for images of another size.
        """
        mining = self.config.connector_spec.mining
        if self.high_resolution_tower is None or mining is None:
            return None
        if pixel_values.shape[-1] != mining.image_size:
            raise ValueError(
                f"images of {pixel_values.shape[-1]} pixels given, and the high-resolution tower "
                f"sees {mining.image_size}: make them of that size (connector.mining.image_size)"
            )
        with torch.no_grad():
            return self.high_resolution_tower.windows(pixel_values, mining.window)

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Dense features [I, N, C] of normalised images [I, 3, H, W], without a graph."""
        pixel_values = self.low_resolution(pixel_values)
        with torch.no_grad():
            if self.config.anyres is None:
                return self._dense_features(pixel_values)
            passes = [self._dense_features(views) for views in pixel_values.split(VIEWS_PER_PASS)]
            return torch.cat(passes)

    def _dense_features(self, pixel_values: Tensor) -> Tensor:
        return dense_features(
            self.vision_tower.hidden_states(pixel_values),
            self.config.connector_spec,
            tower_layers=self.config.tower_layers,
        )

    def images_of(self, pixel_values: Tensor) -> Tensor:
        """What the trainable part is given of normalised images [I, 3, H, W]: themselves where the
        tower is trained, else its dense features.
        """
        trained = self.trainable_part.vision_tower is not None
        return pixel_values if trained else self.encode_images(pixel_values)

    def forward(self, micro_batch: MicroBatch, pixel_values: Tensor) -> PackedOutput:
        """One micro-batch with its normalised images [I, 3, H, W] (model.preprocess)."""
        output: PackedOutput = self.trainable_part(
            micro_batch, self.images_of(pixel_values), self.windows_of(pixel_values)
        )
        return output

    @contextmanager
    def stock_attention(self, implementation: str = "sdpa") -> Iterator[None]:
        """Use transformers' own attention inside the block (generation, padded batches)."""
        self.language_model.set_attn_implementation(implementation)
        try:
            yield
        finally:
            self.language_model.set_attn_implementation(self._packed_attention)

    @torch.no_grad()
    def image_embeddings(
        self, pixel_values: Tensor, image_sizes: Sequence[tuple[int, int]] | None = None
    ) -> Sequence[Tensor]:
        """What the language model sees of each image, [N_i, H]; arguments as for `generate`."""
        features: Tensor = self.projector(
            self.encode_images(pixel_values), self.windows_of(pixel_values)
        )
        if self.config.anyres is None:
            return features.unbind()
        if image_sizes is None:
            raise ValueError(
                "the model sees an image as several tiles (AnyRes), whose order follows from its "
                "size: give image_sizes, (width, height) of every image"
            )
        newline = None if self.image_newline is None else self.image_newline()
        return in_order(features, image_sizes, layout=self.config.image_layout, newline=newline)

    @torch.no_grad()
    def prompt_embeddings(
        self,
        input_ids: Sequence[Tensor] | Tensor,
        pixel_values: Tensor | None = None,
        *,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        frames: TaggedFrames | None = None,
        max_prompt: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Embeddings [B, T, H] and attention mask [B, T] of prompts as for `generate`."""
        images: Sequence[Tensor] = ()
        if pixel_values is not None:
            images = self.image_embeddings(pixel_values, image_sizes)
        if frames is not None:
            images = of_tags(images, frames)
        return left_padded(
            input_ids,
            images,
            self.get_input_embeddings(),
            image_token_id=self.config.image_token_id,
            max_prompt=max_prompt,
        )

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Sequence[Tensor] | Tensor,
        pixel_values: Tensor | None = None,
        *,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        frames: TaggedFrames | None = None,
        max_prompt: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generate from prompts; returns the new token ids [B, L] only, or what the language
        model's generate() returns under `return_dict_in_generate`.

        input_ids: [B, T] or a list of B prompts [T_b], with config.image_token_id once per image;
        pixel_values [I, 3, H, W] in order of the tags, under AnyRes the tiles of all images, with
        image_sizes, their (width, height); `frames`: which of them are videos; a prompt longer than
        `max_prompt` with its images is cut at its end. Other arguments go to the language model's
        generate(). Raises ValueError when tags and images differ in number.
        """
        embeddings, mask = self.prompt_embeddings(
            input_ids, pixel_values, image_sizes=image_sizes, frames=frames, max_prompt=max_prompt
        )
        with self.stock_attention():
            return self.language_model.generate(
                inputs_embeds=embeddings, attention_mask=mask, **kwargs
            )


# After `import densekit`, these open a folder of densekit's own format (densekit/registration.py).
for _auto in (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText):
    _auto.register(DenseConnectorConfig, DenseConnectorForConditionalGeneration, exist_ok=True)
