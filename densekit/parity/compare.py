"""Comparisons: the largest difference of each quantity of a case, and whether it is within
tolerance.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from densekit.errors import DensekitError

# Tolerances (docs/architecture.md). Exact quantities use 0.
FEATURES = 5e-5
LOGITS = 5e-5
LOSS = 1e-5
GRADIENTS = 1e-5  # |difference|_2 / |gradient|_2
CURVE = 1e-4
FINAL_WEIGHTS = 1e-5  # |difference|_2 / |weights|_2 after 20 steps of AdamW
FINAL_LORA = (
    1e-4  # likewise; adapters start at zero, so their first updates are of the size of the rounding
)
NORMS = 1e-5  # relative, each
STATISTICS = 2e-6  # relative to the size of the whole tensor
ROUNDED_LOG = 6e-5  # the recorded log rounds the loss to four digits


class Quantities:
    """The quantities of one case; each keeps its largest difference over all comparisons."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}

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
        difference = float("inf") if a.shape != b.shape else float(np.abs(a - b).max(initial=0.0))
        self._note(name, float("inf") if np.isnan(difference) else difference, tolerance)

    def relative(
        self, name: str, ours: Any, recorded: Any, tolerance: float, *, scale: float | None = None
    ) -> None:
        """|ours - recorded|_2 / |recorded|_2 (or / scale)."""
        a, b = (np.asarray(_plain(value), dtype=np.float64) for value in (ours, recorded))
        if a.shape != b.shape:
            self._note(name, float("inf"), tolerance)
            return
        size = float(np.linalg.norm(b)) if scale is None else scale
        difference = float(np.linalg.norm(a - b)) / (size or 1.0)
        self._note(name, float("inf") if np.isnan(difference) else difference, tolerance)

    def each_relative(self, name: str, ours: Any, recorded: Any, tolerance: float) -> None:
        """The largest |ours - recorded| / |recorded| over the elements; a recorded 0 is compared
        absolutely.
        """
        a, b = (np.asarray(_plain(value), dtype=np.float64) for value in (ours, recorded))
        if a.shape != b.shape:
            self._note(name, float("inf"), tolerance)
            return
        self.close(
            name, a / np.where(b == 0, 1, np.abs(b)), b / np.where(b == 0, 1, np.abs(b)), tolerance
        )

    def failed(self, name: str, message: str) -> None:
        """A quantity that could not be computed."""
        self.values[name] = {"max_abs_diff": None, "tolerance": 0.0, "ok": False, "error": message}

    def _note(self, name: str, difference: float, tolerance: float) -> None:
        known = self.values.setdefault(
            name, {"max_abs_diff": 0.0, "tolerance": tolerance, "ok": True}
        )
        if known["max_abs_diff"] is None or difference <= known["max_abs_diff"]:
            return
        known["max_abs_diff"] = difference if np.isfinite(difference) else None
        known["ok"] = difference <= tolerance
        if not np.isfinite(difference):
            known["error"] = "the shape differs, or a value is not a number"


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


def run_case(check: Callable[[Quantities], None]) -> dict[str, dict[str, Any]]:
    """Run one case; whatever keeps it from running is a failure of the case, not of the program."""
    quantities = Quantities()
    try:
        check(quantities)
    except DensekitError as error:
        quantities.failed("case", str(error))
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        RuntimeError,
        EOFError,
    ) as error:
        quantities.failed("case", f"{type(error).__name__}: {error}")
    if not quantities.values:
        quantities.failed("case", "holds nothing to compare")
    return quantities.values
