"""The transformers configuration of a Dense Connector model."""

from typing import Any

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from densekit.model.connectors.dense import ConnectorSpec
from densekit.model.towers.tower import num_patches, vision_config_of


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
    def connector_spec(self) -> ConnectorSpec:
        """The connector with its indices; the high-level layer follows from the tower."""
        assert self.connector is not None
        return ConnectorSpec(
            kind=self.connector["kind"],
            feature_layer=vision_config_of(self.vision_config).num_hidden_layers - 1,
            layers=tuple(self.connector.get("layers") or ()),
            groups=tuple(tuple(group) for group in self.connector.get("groups") or ()),
        )

    @property
    def image_tokens(self) -> int:
        """Feature tokens that one image puts into the row."""
        return self.connector_spec.num_tokens(num_patches(self.vision_config))
