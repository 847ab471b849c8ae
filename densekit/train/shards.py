"""Shards: the slices of master weights and AdamW states that one rank owns, under any engine."""

from dataclasses import dataclass

from torch import Tensor

ADAMW_STATES = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Elements start .. start + len(weight) of one flattened parameter; the tensors are live fp32
    views, all 1-D.
    """

    name: str
    """Parameter name: `projector.*` or `language_model.*`."""
    numel: int
    """Elements of the whole parameter."""
    start: int
    weight: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    def __len__(self) -> int:
        return self.weight.numel()

    def tensors(self) -> dict[str, Tensor]:
        """The three tensors by the name a checkpoint gives them."""
        return {"weight": self.weight, "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}

    def narrow(self, start: int, length: int) -> "Shard":
        """The part of it that holds elements start .. start + length of the parameter."""
        cut = {
            name: tensor.narrow(0, start - self.start, length)
            for name, tensor in self.tensors().items()
        }
        return Shard(name=self.name, numel=self.numel, start=start, **cut)
