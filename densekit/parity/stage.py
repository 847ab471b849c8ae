"""One recorded stage: the golden batch (tokens, pixels, features, logits, loss, gradients) and the
20-step curve.
"""

from pathlib import Path

import numpy as np

from densekit.model.weights import read_weights
from densekit.parity.batch_inputs import check_pixels, check_tokens, check_vision
from densekit.parity.batch_outputs import check_outputs
from densekit.parity.case import Recording
from densekit.parity.compare import Quantities
from densekit.parity.curve import check_curve, check_weights
from densekit.parity.names import by_official_name

RECORDED = (
    "grad",
    "grad_total_l2",
    "loss",
    "loss_f64_from_logits",
    "n_supervised",
    "n_valid",
    "param_groups",
    "steps",
    "trainable",
    "vision",
)
"""What every stageN.json holds; `order`, `log` and `final_params` are compared where they are."""


def check_stage(root: Path, folder: Path, stage: int, quantities: Quantities) -> None:
    """Everything recorded of one stage of one case folder."""
    recording = Recording.read(root, folder / f"stage{stage}.json", *RECORDED)
    arrays = dict(np.load(folder / f"stage{stage}.npz"))
    start = folder / (
        "projector_init.safetensors" if stage == 1 else "projector_after_stage1.safetensors"
    )
    init = {f"connector.{name}": value for name, value in read_weights(start).items()}
    model = recording.model(init)
    reader = recording.reader(root / "data" / f"stage{stage}_batch.json", model)
    quantities.exact("settings", recording.math.stage, stage)
    check_tokens(reader, recording, arrays, quantities)
    pixels = check_pixels(reader, arrays, quantities)
    check_vision(recording, model, pixels, arrays, quantities)
    gradients = read_weights(folder / f"stage{stage}_grads.safetensors")
    check_outputs(recording, model, reader, arrays, gradients, quantities)

    model = recording.model(init)
    reader = recording.reader(root / "data" / f"stage{stage}_train.json", model)
    check_curve(recording, model, reader, quantities)
    after = read_weights(folder / f"projector_after_stage{stage}.safetensors")
    ours = by_official_name(model.projector.state_dict())
    check_weights("final_weights", ours, by_official_name(after), quantities)
