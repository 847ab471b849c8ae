"""Both stages and LoRA at tiny size, from the same weights: their losses, for the device and for
the CPU beside it, and whether everything ended up on the device.
"""

from typing import Any

import torch

from densekit.spec.execution import Execution
from densekit.train.engines.process_group import make_accelerator
from gpu.made import make_trainer, workload_of

STEPS, SAMPLES = 3, 2
TOLERANCE = 2e-3
"""Relative difference of a loss in fp32: the convolutions of a GPU may use TF32."""


def losses_on(device: str) -> dict[str, Any]:
    """By what is trained: the losses of some steps, and the weights that are elsewhere."""
    execution = Execution(device=device, micro_batch_size=SAMPLES)  # type: ignore[arg-type]
    accelerator = make_accelerator(execution)
    found = {}
    for what in ("stage1", "lora", "full"):
        torch.manual_seed(0)
        math, workload = workload_of("tiny", what)
        trainer = make_trainer(
            math, workload, execution, accelerator, steps=STEPS, samples=2 * SAMPLES, on="cpu"
        )
        losses = [trainer.step(batch).loss for batch in trainer.batches()]
        weights = trainer.engine.model.state_dict()
        misplaced = [name for name, value in weights.items() if value.device.type != device]
        found[what] = {"losses": losses, "misplaced": misplaced}
    return {"ok": not any(stage["misplaced"] for stage in found.values()), "stages": found}


def compare(ours: dict[str, Any], cpu: dict[str, Any]) -> dict[str, Any]:
    """The losses of the device beside the CPU's."""
    stages = {}
    for what, stage in ours["stages"].items():
        pairs = zip(stage["losses"], cpu["stages"][what]["losses"], strict=True)
        worst = max(
            abs(one - two) / abs(two) if one is not None and two else float("inf")
            for one, two in pairs
        )
        stages[what] = {**stage, "relative_difference": worst}
    close = all(stage["relative_difference"] <= TOLERANCE for stage in stages.values())
    return {"ok": bool(ours["ok"] and cpu["ok"] and close), "stages": stages}
