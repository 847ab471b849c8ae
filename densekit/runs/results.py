"""results.json: what a complete run did in all; its evaluations have their own."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from densekit.files.json_files import write_json

RESULTS_FILE = "results.json"


@dataclass(kw_only=True)
class Summary:
    """Totals of a run, counted step by step: nothing skipped, masked or cut is left out."""

    steps: int = 0
    samples: int = 0
    tokens: int = 0
    """Of the packed sequences, image features included."""
    supervised_tokens: int = 0
    """Label positions."""
    masked_samples: int = 0
    """Samples without a label position."""
    empty_groups: int = 0
    """Reference groups without a label position."""
    overflows: int = 0
    """Of fp16 gradients."""
    skipped_steps: int = 0
    """Steps whose batch was consumed without changing a weight (fp16 overflow under faithful
    semantics).
    """
    notes: dict[str, int] = field(default_factory=dict)
    """What happened to samples on the way to tokens, by kind."""
    first_loss: float | None = None
    last_loss: float | None = None
    seconds: float = 0.0
    """Of training, all attempts together."""
    data_seconds: float = 0.0
    """Of `seconds`: rank 0's device waited for data."""
    compute_seconds: float = 0.0
    """Of `seconds`: it computed."""
    peak_seconds: float = 0.0
    """What the model's own operations would take at the GPUs' dense peak: by `seconds` it is the
    MFU. 0 where the peak is not known.
    """


@dataclass(frozen=True, kw_only=True)
class Results:
    """results.json."""

    summary: Summary

    def write(self, run: Path) -> Path:
        """Write results.json into the run directory `run`; returns its path."""
        path = run / RESULTS_FILE
        write_json(path, {"summary": asdict(self.summary)})
        return path
