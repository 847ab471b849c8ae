"""The transformers configuration of a Dense Connector model."""

from typing import Any

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from densekit.model.towers.tower import num_patches, vision_config_of
from densekit.spec.connector import Connector
from densekit.spec.vision import ImageLayout


class DenseConnectorConfig(PreTrainedConfig):
    """Language model, vision tower and connector of one model.

    `connector` is {"kind", "layers", "groups"} with hidden_states indices. The tower's
    configuration is kept whole (all its layers); the model builds only the blocks the connector
    reads.
    """

    model_type = "dense_connector"
    sub_configs = {"text_config": AutoConfig, "vision_config": AutoConfig}  # noqa: RUF012 (transformers' interface)

    text_config: Any = None
    vision_config: Any = None
    connector: dict[str, Any] | None = None
    image_token_id: int = -200

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("text_config", "vision_config"):
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
    def image_layout(self) -> ImageLayout:
        """How an image becomes views and tokens."""
        patches = num_patches(self.vision_config)
        return ImageLayout(patches=patches, connector=self.connector_spec)
