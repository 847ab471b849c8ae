"""Comparisons: the largest difference of each quantity of a case, and whether it is within
tolerance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from densekit.errors import DataError, DensekitError, UsageError

# Tolerances (docs/architecture.md). Exact quantities use 0.
FEATURES = 5e-5
LOGITS = 5e-5
LOSS = 1e-5
GRADIENTS = 1e-5  # |difference|_2 / |gradient|_2
GRAD_NORM = 1e-4  # relative
CURVE = 1e-4
FINAL_WEIGHTS = 1e-5  # |difference|_2 / |weights|_2 after 20 steps of AdamW
FINAL_LORA = (
    1e-4  # likewise; adapters start at zero, so their first updates are of the size of the rounding
)
NORMS = 1e-5  # relative, each
STATISTICS = 2e-6  # relative to the size of the whole tensor
ROUNDED_LOG = 6e-5  # the recorded log rounds the loss to four digits

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What all comparisons of one quantity of a case came to."""

    max_abs_diff: float | None
    """The largest difference; None when something could not be compared."""
    tolerance: float
    """That of the first comparison; each comparison is judged by its own."""
    ok: bool
    """Whether every comparison is within its tolerance."""
    worst_ratio: float
    """The largest difference / tolerance; inf when what must be equal is not."""
    error: str | None = None
    """Why it could not be compared, or what is wrong."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; an infinite ratio is null."""
        values: dict[str, Any] = {
            "max_abs_diff": self.max_abs_diff,
            "tolerance": self.tolerance,
            "ok": self.ok,
            "worst_ratio": self.worst_ratio if isfinite(self.worst_ratio) else None,
        }
        return values if self.error is None else {**values, "error": self.error}


class Quantities:
    """The quantities of one case; each keeps its worst comparison."""

    def __init__(self) -> None:
        self.values: dict[str, Quantity] = {}

    def exact(self, name: str, ours: Any, recorded: Any) -> None:
        """Integers, strings or pixels that must be identical; counts differing elements when shapes
        agree.
        """
        if isinstance(ours, (str, dict, list, tuple, type(None))) or isinstance(
            recorded, (str, type(None))
        ):
            self._note(name, 0.0 if ours == recorded else 1.0, 0.0)
            return
        self.close(name, ours, recorded, 0.0)

    def close(self, name: str, ours: Any, recorded: Any, tolerance: float) -> None:
        """Numbers that may differ by `tolerance` in absolute value; another shape or a NaN is a
        failure.
        """
        a, b = (np.asarray(_plain(value), dtype=np.float64) for value in (ours, recorded))
        difference = inf if a.shape != b.shape else float(np.abs(a - b).max(initial=0.0))
        self._note(name, difference, tolerance)

    def relative(
        self, name: str, ours: Any, recorded: Any, tolerance: float, *, scale: float | None = None
    ) -> None:
        """|ours - recorded|_2 / |recorded|_2 (or / scale)."""
        a, b = (np.asarray(_plain(value), dtype=np.float64) for value in (ours, recorded))
        if a.shape != b.shape:
            self._note(name, inf, tolerance)
            return
        size = float(np.linalg.norm(b)) if scale is None else scale
        self._note(name, float(np.linalg.norm(a - b)) / (size or 1.0), tolerance)

    def each_relative(self, name: str, ours: Any, recorded: Any, tolerance: float) -> None:
        """The largest |ours - recorded| / |recorded| over the elements; a recorded 0 is compared
        absolutely.
        """
        a, b = (np.asarray(_plain(value), dtype=np.float64) for value in (ours, recorded))
        if a.shape != b.shape:
            self._note(name, inf, tolerance)
            return
        size = np.where(b == 0, 1, np.abs(b))
        self.close(name, a / size, b / size, tolerance)

    def refused(self, what: str, error: str | None, compute: Callable[[], Result]) -> Result | None:
        """Whether densekit refuses (DataError, UsageError) exactly the inputs that raised `error`
        in the official code; returns what `compute` returns, None when either refuses.
        """
        try:
            result, reason = compute(), None
        except (DataError, UsageError) as refusal:
            result, reason = None, str(refusal)
        if reason is None and not error:
            return result
        if reason is None:
            self._note("refused", 1.0, 0.0, f"{what}: accepted; the official code raised {error}")
        elif error:
            self._note("refused", 0.0, 0.0)
        else:
            self._note("refused", 1.0, 0.0, f"{what}: the official code accepts it; {reason}")
        return None

    def failed(self, name: str, message: str) -> None:
        """A quantity that could not be computed."""
        self._note(name, inf, 0.0, message)

    def _note(
        self, name: str, difference: float, tolerance: float, error: str | None = None
    ) -> None:
        """One comparison; a difference that is not a finite number is a failure."""
        if not isfinite(difference):
            difference = inf
            error = error or "the shape differs, or a value is not a number"
        ratio = 0.0 if difference == 0 else difference / tolerance if tolerance else inf
        known = self.values.get(name)
        if known is None:
            known = Quantity(max_abs_diff=0.0, tolerance=tolerance, ok=True, worst_ratio=0.0)
        largest = inf if known.max_abs_diff is None else max(known.max_abs_diff, difference)
        self.values[name] = replace(
            known,
            max_abs_diff=largest if isfinite(largest) else None,
            ok=known.ok and difference <= tolerance,
            worst_ratio=max(known.worst_ratio, ratio),
            error=known.error or error,
        )


def _plain(value: Any) -> Any:
    return value.detach().cpu().double().numpy() if isinstance(value, Tensor) else value


def statistics(value: Tensor) -> dict[str, Any]:
    """The statistics the recordings keep of a tensor: shape, sum, abs_sum, l2 and the first eight
    values.
    """
    array = value.detach().double()
    return {
        "shape": list(array.shape),
        "sum": array.sum().item(),
        "abs_sum": array.abs().sum().item(),
        "l2": array.norm().item(),
        "first8": array.flatten()[:8].tolist(),
    }


def compare_statistics(
    quantities: Quantities, name: str, ours: Tensor, recorded: Mapping[str, Any], tolerance: float
) -> None:
    """Compare a tensor with recorded statistics; each relative to the tensor's own size."""
    found = statistics(ours)
    quantities.exact(f"{name}_shape", found["shape"], recorded["shape"])
    scale_sum, scale_l2 = max(recorded["abs_sum"], 1e-12), max(recorded["l2"], 1e-12)
    for key, scale in (
        ("sum", scale_sum),
        ("abs_sum", scale_sum),
        ("l2", scale_l2),
        ("first8", scale_l2),
    ):
        quantities.relative(name, found[key], recorded[key], tolerance, scale=scale)


def run_case(check: Callable[[Quantities], None]) -> dict[str, Quantity]:
    """Run one case; whatever keeps it from running is a failure of the case, not of the program."""
    quantities = Quantities()
    try:
        check(quantities)
    except DensekitError as error:
        quantities.failed("case", str(error))
    except KeyError as error:
        quantities.failed("case", f"an entry is missing: {error}")
    except (
        OSError,
        ValueError,
        IndexError,
        TypeError,
        AttributeError,
        RuntimeError,
        EOFError,
    ) as error:
        quantities.failed("case", " ".join(f"{type(error).__name__}: {error}".split()))
    if not quantities.values:
        quantities.failed("case", "holds nothing to compare")
    return quantities.values
