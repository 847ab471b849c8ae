"""What becomes of entries whose image is missing or cannot be used, as a recipe declares it
(`data.missing`): which entries of the file are trained on, in what order they are numbered.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from densekit.batching.rng import TorchGenerator
from densekit.data.images import BadImage, Images
from densekit.errors import DataError
from densekit.files.hashing import json_sha256
from densekit.spec.math import Data

SCHEMA = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """The entries of an annotation file that are trained on."""

    policy: str
    entries: npt.NDArray[np.int64]
    """Index in the file by index of the sample, shape (samples,)."""
    bad: tuple[BadImage, ...]
    """What was dropped or replaced."""

    def as_json(self) -> dict[str, Any]:
        """What missing.json holds."""
        listed = [{"entry": bad.index, "image": bad.image} for bad in self.bad]
        return {"schema": SCHEMA, "policy": self.policy, "entries": listed}

    @property
    def sha256(self) -> str:
        """The hash by which a run knows what was dropped or replaced."""
        return json_sha256(self.as_json())

    def describe(self) -> str:
        """One line for people."""
        total = len(self.bad)
        verb = "dropped" if self.policy == "drop" else "replaced by others"
        entries = "1 entry is" if total == 1 else f"{total} entries are"
        return f"{entries} {verb}, because the image is missing or cannot be used"


def choose_entries(data: Data, images: Images, *, count: int, seed: int) -> Chosen:
    """Apply a recipe's policy to the `count` entries of its annotation file.

    `drop` leaves the bad ones out, so that order and steps are those of a shorter file; `replace`
    puts a good entry, drawn from the seed, in the place of each, so that the count stays. Raises
    DataError where more entries are bad than `data.missing_ceiling` admits, or all of them.
    """
    bad = {entry.index for entry in images.bad}
    if len(bad) > data.missing_ceiling * count or len(bad) == count:
        raise DataError(
            f"data.missing: {len(bad)} of {count} entries lack a usable image (first: entry "
            f"{images.bad[0].index}, {images.bad[0].image}), more than `missing_ceiling` "
            f"{data.missing_ceiling:g} admits: check the image folder {images.folder}"
        )
    good = np.array([index for index in range(count) if index not in bad], dtype=np.int64)
    entries = good
    if data.missing == "replace":
        entries = np.arange(count, dtype=np.int64)
        generator = TorchGenerator(seed)
        for index in sorted(bad):
            entries[index] = good[generator.int64() % len(good)]
    return Chosen(policy=data.missing, entries=entries, bad=images.bad)
