"""What the ledger's keys mean for one run, a line each: which are followed as the official code has
them, which are not, and what each changes. docs/upstream.md has the evidence.
"""

from collections.abc import Iterator

from densekit.spec.math import Math
from densekit.spec.types import LEDGER_ENTRIES, Dtype, LedgerEntry

FAITHFUL: dict[LedgerEntry, str] = {
    "L1": "labels where the official code counts them; a sample whose count disagrees is masked",
    "U8": "a label weighs by its group of the reference topology (a mean of micro-batch means)",
    "U9": "the last global batch is completed from the start of the order, or dropped",
    "L2": "a batch whose fp16 gradients overflow is dropped",
}
FIXED: dict[LedgerEntry, str] = {
    "L1": "labels are the answers' own tokens; no sample is masked for its count",
    "U8": "every label of a step weighs the same, whatever its group",
    "U9": "every sample once in an epoch; the last step is short",
    "L2": "a batch whose fp16 gradients overflow is computed again at a lower loss scale",
}
COARSE = "them rounded to bf16, shared by neighbours from 256 on"
ROUNDED = "connector and adapters start from weights rounded to bf16"


def ledger_lines(math: Math, dtype: Dtype) -> list[str]:
    """`U8 faithful: ...` for every key of a run that computes in `dtype`."""
    return [*_keys(math, dtype), *_positions(math, dtype), *_initial_weights(math, dtype)]


def _keys(math: Math, dtype: Dtype) -> Iterator[str]:
    for entry in LEDGER_ENTRIES:
        if entry not in math.ledger or (entry == "L2" and dtype != "fp16"):
            continue  # of a version that did not know the key; nothing overflows
        if math.ledger[entry] == "faithful":
            yield f"{entry} faithful: {FAITHFUL[entry]}"
        else:
            yield f"{entry} fixed, the official behaviour is not followed: {FIXED[entry]}"


def _positions(math: Math, dtype: Dtype) -> Iterator[str]:
    """U12, a key of its own in the recipe."""
    if math.positions == "bf16":
        yield f"U12 followed (positions: bf16): {COARSE}"
    elif math.stage == 2 and dtype == "bf16":
        yield f"U12 not followed (positions: exact): the A100 scripts very probably had {COARSE}"


def _initial_weights(math: Math, dtype: Dtype) -> Iterator[str]:
    """U13, a key of its own in the recipe."""
    if math.initial_weights == "bf16":
        yield f"U13 followed (initial_weights: bf16): {ROUNDED}"
    elif dtype == "bf16":
        yield f"U13 not followed (initial_weights: exact): the A100 scripts had {ROUNDED}"
