"""What a run did, in lines for people."""

from typing import Any

from densekit.train.trainer import Summary


def report(summary: Summary, results: dict[str, Any], place: str) -> list[str]:
    """Totals, everything masked, skipped or repeated, and the held-out figures; `place` is the run
    directory.
    """
    lines = [
        f"{summary.steps} steps, {summary.samples} samples, {summary.tokens} tokens "
        f"({summary.supervised_tokens} with a label) in {summary.seconds:.1f} s; "
        f"loss {_number(summary.first_loss)} -> {_number(summary.last_loss)}"
    ]
    if summary.masked_samples or summary.empty_groups or summary.notes:
        noted = ", ".join(f"{name} {count}" for name, count in sorted(summary.notes.items()))
        lines.append(
            f"samples without a label: {summary.masked_samples}; reference groups without one: "
            f"{summary.empty_groups}" + (f"; notes: {noted}" if noted else "")
        )
    if summary.overflows:
        lines.append(
            f"fp16 overflows: {summary.overflows}; steps whose batch changed no weight: "
            f"{summary.skipped_steps}"
        )
    probe = results.get("probe", {})
    for name in ("images_in_place", "images_shuffled"):
        if name in probe:
            part = probe[name]
            lines.append(
                f"held-out questions, {name.replace('_', ' ')}: {part['correct']}/"
                f"{probe['questions']} = {part['accuracy']:.3f} "
                f"(95 % Wilson lower bound {part['wilson_lower']:.3f}; "
                f"majority class {probe['majority_class']:.3f})"
            )
    return [*lines, f"results in {place}"]


def _number(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4f}"
