"""The protocols, one module each that defines PROTOCOL; recipes/paper.yaml uses the same names."""

from importlib import import_module
from pathlib import Path

from densekit.errors import UsageError
from densekit.runs.benchmarks import Protocol

_FOLDER = Path(__file__).parent


def benchmark_names() -> tuple[str, ...]:
    """Modules of this folder that define PROTOCOL, sorted."""
    return tuple(
        sorted(
            path.stem
            for path in _FOLDER.glob("*.py")
            if "\nPROTOCOL = " in path.read_text(encoding="utf-8")
        )
    )


def get_protocol(name: str) -> Protocol:
    """A protocol by its benchmark's name. Raises UsageError for one that does not exist."""
    if name not in benchmark_names():
        raise UsageError(f"unknown benchmark {name!r}; known: {', '.join(benchmark_names())}")
    protocol: Protocol = import_module(f"densekit.evaluate.protocols.{name}").PROTOCOL
    return protocol
