"""The transformers configuration of a Dense Connector model, alone or of parts in folders."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from densekit.errors import DataError
from densekit.model.towers import num_patches, vision_config_of
from densekit.model.towers.convnext import conv_config
from densekit.spec.anyres import AnyRes
from densekit.spec.connector import Connector
from densekit.spec.vision import ImageLayout, check_anyres


class DenseConnectorConfig(PreTrainedConfig):
    """Language model, vision tower and connector of one model.

    `connector` is {"kind", "layers", "groups"} with hidden_states indices. The tower's
    configuration is kept whole (all its layers); the model builds only the blocks the connector
    reads.
    """

    model_type = "dense_connector"
    sub_configs = {  # noqa: RUF012 (transformers' interface)
        "text_config": AutoConfig,
        "vision_config": AutoConfig,
        "high_resolution_config": AutoConfig,
    }

    text_config: Any = None
    vision_config: Any = None
    high_resolution_config: Any = None
    connector: dict[str, Any] | None = None
    anyres: dict[str, Any] | None = None
    image_token_id: int = -200

    def __post_init__(self, **kwargs: Any) -> None:
        for name in self.sub_configs:
            value = getattr(self, name)
            if isinstance(value, dict):
                setattr(self, name, AutoConfig.for_model(**value))
        if self.connector is None:
            self.connector = {"kind": "none"}
        super().__post_init__(**kwargs)

    @property
    def tower_layers(self) -> int:
        """Layers of the pretrained tower, read or not."""
        return int(vision_config_of(self.vision_config).num_hidden_layers)

    @property
    def connector_spec(self) -> Connector:
        """The connector with its indices."""
        assert self.connector is not None
        given = {name: value for name, value in self.connector.items() if value}
        return Connector.model_validate(given)

    @property
    def window_channels(self) -> int | None:
        """Channels of the high-resolution tower, where there is one."""
        conv = self.high_resolution_config
        return None if conv is None else sum(conv.hidden_sizes)

    @property
    def anyres_spec(self) -> AnyRes | None:
        """Sizes and order of an image's tiles, where it has several."""
        return None if self.anyres is None else AnyRes.model_validate(self.anyres)

    @property
    def image_layout(self) -> ImageLayout:
        """How an image becomes views and tokens."""
        patches = num_patches(self.vision_config)
        return ImageLayout(
            patches=patches,
            connector=self.connector_spec,
            anyres=self.anyres_spec,
            tile=int(vision_config_of(self.vision_config).image_size),
        )


AutoConfig.register(DenseConnectorConfig.model_type, DenseConnectorConfig, exist_ok=True)


def read_config(directory: Path, what: str) -> PreTrainedConfig:
    """The transformers configuration in a model folder; DataError when there is none that loads."""
    if not (directory / "config.json").is_file():
        raise DataError(
            f"{what}: {directory} holds no config.json; put the model's folder there "
            "(transformers format)"
        )
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever a class of transformers raises for its values
        reason = " ".join(str(error).split())
        raise DataError(
            f"{what}: {directory}/config.json cannot be used: {reason}; put the published file back"
        ) from None
    return config


def check_parts(config: DenseConnectorConfig) -> None:
    """Raise ValueError for towers, connector and tiles that do not fit together."""
    connector = config.connector_spec
    check_anyres(config.anyres_spec, connector, config.image_layout.tile)
    last_layer = connector.last_layer(config.tower_layers)
    if last_layer > config.tower_layers:
        raise ValueError(
            f"hidden_states[{last_layer}] is asked of a tower of {config.tower_layers} layers"
        )
    connector.check_patches(num_patches(config.vision_config))
    if (connector.mining is None) != (config.high_resolution_config is None):
        raise ValueError("connector.mining and a high-resolution tower go together")


def model_config(
    language_model: Path,
    vision_tower: Path,
    connector: Connector,
    *,
    anyres: AnyRes | None = None,
    high_resolution_tower: Path | None = None,
) -> DenseConnectorConfig:
    """The configuration of a model made of these parts; DataError when they do not fit together."""
    conv = None
    if connector.mining is not None:
        assert high_resolution_tower is not None, "a connector that mines has a second tower"
        conv = conv_config(high_resolution_tower, connector.mining)
    try:
        config = DenseConnectorConfig(
            text_config=read_config(language_model, "language model"),
            vision_config=read_config(vision_tower, "vision tower"),
            high_resolution_config=conv,
            connector=connector.model_dump(mode="json"),
            anyres=None if anyres is None else anyres.model_dump(mode="json"),
        )
        check_parts(config)
    except ValueError as error:
        raise DataError(f"connector on {vision_tower}: {error}") from None
    return config
