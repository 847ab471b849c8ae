"""Every part of a process's memory in words and numbers, for `densekit plan --why`."""

from densekit.planner.memory_trace.model import GRADIENTS, KEPT, LANGUAGE, LOGITS
from densekit.planner.model_states import FRAGMENTATION, ModelStates
from densekit.planner.workload import MicroBatchShape
from densekit.spec.architectures import ModelShape
from densekit.spec.hardware import GIB

Phases = dict[str, dict[str, int]]


def formulas(
    states: ModelStates, micro_batch: MicroBatchShape, *, at: str, phases: Phases
) -> dict[str, str]:
    """A line for each part of the phase `at`, and for `host`."""
    execution, shape = states.execution, states.model.shape
    language = shape.language
    width, trained = states.width, f"{states.trained:,}"
    ranks = f" / {execution.world_size} ranks" if execution.zero_stage else ""
    weight_ranks = ranks if execution.zero_stage == 3 else ""
    trained_width = width if execution.zero_stage else 4
    kept = phases[KEPT][LANGUAGE] / GIB
    alive = phases[at][LANGUAGE] / GIB
    in_host = "in host RAM" if execution.cpu_offload else None
    masters = ", fp32 master weights" if states.optimizer > 8 * states.share else ""
    states_width = states.optimizer // states.share
    return {
        "weights": f"{trained} trained x {trained_width} B{weight_ranks} + {states.frozen:,} "
        f"frozen x {width} B{weight_ranks} + tower {states.tower:,} x {width} B",
        GRADIENTS: in_host or f"{trained} x 4 B{ranks}",
        "optimizer": in_host
        or f"{trained} x {states_width} B{ranks} (exp_avg, exp_avg_sq{masters})",
        "tower": f"{max(1, micro_batch.images)} images: {shape.connector.features} tokens x "
        f"{shape.connector.feature_width} channels x {width} B and pixels "
        f"{3 * shape.tower.image_size**2} x {width + 4} B{_windows(shape, width)}",
        LANGUAGE: f"{micro_batch.tokens:,} tokens: {language.layers} layers keep {kept:.2f} GiB "
        f"up to the loss, the {at} has {alive:.2f}",
        LOGITS: f"{micro_batch.label_positions:,} label positions x {language.vocab:,} tokens of "
        "vocabulary",
        "buffers": _buffers(states, at, phases),
        "fragmentation": f"{FRAGMENTATION:.0%} of activations, logits and buffers: an allowance",
        "host": f"{trained} x {states.host // states.share} B{ranks} "
        "(master weights, exp_avg, exp_avg_sq, gradients, staging)",
    }


def _windows(shape: ModelShape, width: int) -> str:
    if not shape.windows:
        return ""
    return (
        f", windows of the second tower {shape.windows} x {width} B, its pixels "
        f"{3 * shape.pixels**2} x 4 B"
    )


def _buffers(states: ModelStates, at: str, phases: Phases) -> str:
    buffers = states.buffers(at)
    casts = phases[at]["buffers"] - sum(buffers.values())
    words = [f"{name} {size / GIB:.2f}" for name, size in buffers.items()]
    if casts:
        words.append(f"half-precision copies of trained weights {casts / GIB:.2f}")
    return ", ".join(words) or "none"
