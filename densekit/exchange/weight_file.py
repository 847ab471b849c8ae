"""One file of tensors, safetensors or a pickle, opened by its header and read tensor by tensor."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from densekit.errors import DataError
from densekit.exchange.pickled import read_pickled
from densekit.files.safetensors_header import read_header
from densekit.files.weight_files import BUFFERS, FLOATS, few, kind_of
from densekit.model.tensor_files import NAMES


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One file of tensors, a pickle or safetensors, that is read only when it is asked for."""

    path: Path
    shapes: Mapping[str, tuple[str, tuple[int, ...]]]
    """(dtype, shape) by name, as safetensors spells the types."""

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], Tensor]]:
        """What gives a tensor by its name. Raises DataError when the file cannot be read.

        A tensor of safetensors is mapped from the disk and lies in host RAM no longer than somebody
        holds it.
        """
        if self.path.suffix != ".safetensors":
            yield read_pickled(self.path).tensors.__getitem__
            return

        def fetch(name: str) -> Tensor:
            # Opened anew each time: what one opening has mapped stays in RAM until the last tensor
            # of it is gone.
            with safe_open(self.path, "pt") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor

        try:
            yield fetch
        except SafetensorError as error:
            raise DataError(f"{self.path} cannot be read: {error}") from None

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Some of its tensors. Raises DataError when they cannot be read."""
        if self.path.suffix != ".safetensors":
            tensors = read_pickled(self.path).tensors
            return {name: tensors[name] for name in names}
        try:
            with safe_open(self.path, "pt") as file:
                return {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise DataError(f"{self.path} cannot be read: {error}") from None


def open_weights(path: Path) -> WeightFile:
    """A file of safetensors or of torch.save. Raises DataError when it is neither, or not whole,
    and for numbers that are no weights.
    """
    if path.suffix == ".safetensors":
        header = read_header(path)
        shapes = {name: (entry.dtype, entry.shape) for name, entry in header.items()}
    else:
        tensors = read_pickled(path).tensors
        shapes = {name: (NAMES[value.dtype], tuple(value.shape)) for name, value in tensors.items()}
    other = [
        f"{name} is {dtype}"
        for name, (dtype, _) in shapes.items()
        if dtype not in FLOATS and kind_of(name, BUFFERS) is None
    ]
    if other:
        raise DataError(
            f"{path}: {few(other)}: weights are one of {', '.join(FLOATS)}; give the file that "
            "these were made from"
        )
    return WeightFile(path=path, shapes=shapes)


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise DataError for weights that are infinite or not a number, as a training that diverged
    leaves them.
    """
    if wrong := [name for name, value in tensors.items() if not value.isfinite().all()]:
        raise DataError(
            f"{path}: {few(wrong)} {'is' if len(wrong) == 1 else 'are'} not finite (NaN or "
            "infinity): the training diverged, or the file is damaged; give another checkpoint"
        )
