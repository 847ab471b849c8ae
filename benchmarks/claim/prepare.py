"""What the recipes tiny_easy_vqa_* and the benchmark read: made once from the package."""

import torch

from densekit.spec.roots import Roots
from densekit.toy.easy_vqa import make_benchmark, make_training, package_folder
from densekit.toy.models import ensure_models

SEED = 0
LANGUAGE_MODEL_STEPS = 60


def prepare(roots: Roots) -> None:
    """Make data:easy-vqa, data:benchmarks/easy-vqa and cache:easy-vqa unless they are there.

    Raises DataError where the package is missing or another version, or a folder is something else.
    """
    package = package_folder()
    training = roots.resolve("data:easy-vqa")
    make_training(package, training)
    make_benchmark(package, roots.resolve("data:benchmarks/easy-vqa"))
    torch.set_num_threads(1)  # the sums of another number round otherwise
    ensure_models(
        roots.resolve("cache:easy-vqa"),
        training / "text.txt",
        seed=SEED,
        steps=LANGUAGE_MODEL_STEPS,
    )
