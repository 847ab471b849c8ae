"""After `import densekit`, transformers' AutoConfig and AutoModel classes open densekit's own
format (`densekit export --format densekit`), without code from the folder.

`import densekit` stays light: it only leaves a finder, which adds a stand-in for the configuration
when somebody imports transformers' table of configurations. The stand-in imports the model class
when a folder of its type is read; the class registers itself (densekit/model/vlm.py).
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

TABLE = "transformers.models.auto.configuration_auto"
MODEL = "densekit.model.vlm"
"""By name, as an entry point has it: this file is below every room."""
MODEL_TYPE = "dense_connector"


class DenseConnectorConfig:
    """Stands for the configuration class of this name until it is needed."""

    model_type = MODEL_TYPE

    def __new__(cls, *values: Any, **settings: Any) -> Any:
        """The configuration with these settings."""
        return _real()(*values, **settings)

    @classmethod
    def from_dict(cls, values: dict[str, Any], **settings: Any) -> Any:
        """What `from_dict` of the class itself makes."""
        return _real().from_dict(values, **settings)

    @classmethod
    def from_pretrained(cls, folder: Any, **settings: Any) -> Any:
        """What `from_pretrained` of the class itself makes."""
        return _real().from_pretrained(folder, **settings)


def _real() -> Any:
    return importlib.import_module(MODEL).DenseConnectorConfig


class _Finder:
    """Finds one module, once: the table."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != TABLE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


class _Loader:
    """Loads it as its own loader does, then adds the stand-in."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self.loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _add(module)


def _add(table: Any) -> None:
    if MODEL_TYPE not in table.CONFIG_MAPPING:
        table.AutoConfig.register(MODEL_TYPE, DenseConnectorConfig)


def register() -> None:
    """Add the stand-in now where transformers' table is there already, else when it comes."""
    if TABLE in sys.modules:
        _add(sys.modules[TABLE])
    else:
        sys.meta_path.insert(0, _Finder())
