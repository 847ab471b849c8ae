"""Recorded patch info mining: the second tower, the windows of its positions, and what each patch
takes of them.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from densekit.files.json_files import read_json, write_json
from densekit.files.pickle_files import OPEN_CLIP_SAFETENSORS
from densekit.model.vlm import DenseConnectorForConditionalGeneration
from densekit.parity.compare import FEATURES, Quantities
from densekit.spec.mining import CONFIGS

WEIGHTS = "convnext.safetensors"
SCORES = 5e-5
LOW = 1e-6
"""Of interpolated normalised pixels."""


@contextmanager
def second_tower(folder: Path, vision_tower: Path) -> Iterator[Path | None]:
    """A folder of the recorded second tower as OpenCLIP's are; None where a case has none. The
    recorded trainer asserts that both towers normalise alike, so this is not stored.
    """
    if not (folder / WEIGHTS).is_file():
        yield None
        return
    processor = read_json(vision_tower / "preprocessor_config.json")
    with TemporaryDirectory(prefix="densekit-parity-") as made:
        (Path(made) / OPEN_CLIP_SAFETENSORS).symlink_to((folder / WEIGHTS).resolve())
        pixels = {"mean": processor["image_mean"], "std": processor["image_std"]}
        write_json(Path(made) / CONFIGS[0], json.loads(json.dumps({"preprocess_cfg": pixels})))
        yield Path(made)


@torch.no_grad()
def check_mining(
    model: DenseConnectorForConditionalGeneration,
    pixels: Tensor,
    arrays: dict[str, np.ndarray],
    quantities: Quantities,
) -> None:
    """`pixels` [I, 3, S, S] as the second tower sees them, normalised."""
    tower, mining = model.high_resolution_tower, model.projector.mining
    assert tower is not None and mining is not None
    low = model.low_resolution(pixels)
    quantities.close("low_resolution_pixels", low, arrays["batch/pixel_low"], LOW)
    quantities.close("stem", tower.model.embeddings(pixels), arrays["aux/stem"], FEATURES)
    states = [*tower.stages(pixels)]
    for number, state in enumerate(states):
        quantities.close("stages", state, arrays[f"aux/stage_{number}"], FEATURES)
    size = states[0].shape[-2:]
    wide = [
        F.interpolate(state, size=size, mode="bilinear", align_corners=False) for state in states
    ]
    whole = torch.cat(wide, dim=1)
    quantities.close("stages_joined", whole[:, :, ::3, ::3], arrays["aux/concat_s3"], FEATURES)
    windows = model.windows_of(pixels)
    assert windows is not None
    dense = model.encode_images(pixels)
    quantities.close("windows", windows[:, :, ::9], arrays["aux/windows_s9"], FEATURES)
    quantities.close("low_resolution_features", dense, arrays["uni/low_res_feature"], FEATURES)
    query, aux, val = mining.query(dense), mining.aux(windows), mining.val(windows)
    quantities.close("query", query, arrays["uni/query"], FEATURES)
    quantities.close("aux", aux[:, :, ::3], arrays["uni/aux_s3"], FEATURES)
    quantities.close("val", val[:, :, ::3], arrays["uni/val_s3"], FEATURES)
    scores = mining.scores(dense, windows)
    quantities.close("scores", scores, arrays["uni/scores"], SCORES)
    quantities.close("attention", scores.softmax(-1), arrays["uni/attention"], FEATURES)
    mined = mining(dense, windows) - dense
    quantities.close("mined", mined, arrays["uni/mined"], FEATURES)
