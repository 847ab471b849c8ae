"""The vision tower of a checkpoint: the one that it names, or the copy inside.

The official loader reads the tower from where mm_vision_tower says and ignores the copy, which a
run in bf16 rounded. Where the tower was trained (unfreeze_mm_vision_tower, of LLaVA-NeXT and
Open-LLaVA-NeXT), the copy is it.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from densekit.errors import DataError
from densekit.exchange.official.folder import OfficialFolder
from densekit.exchange.official.parts import find_model
from densekit.files.weight_files import read_weight_files
from densekit.model.tensor_files import write_tensors

PREPROCESSOR = "preprocessor_config.json"
CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class Tower:
    """Where the tower comes from."""

    folder: Path
    """With config.json and preprocessor_config.json."""
    from_copy: bool
    """Whether its weights are those inside the checkpoint."""
    notes: tuple[str, ...]

    def write(self, found: OfficialFolder, folder: Path) -> None:
        """The copy inside the checkpoint as a folder of its own."""
        folder.mkdir()
        for name in (CONFIG, PREPROCESSOR):
            shutil.copyfile(self.folder / name, folder / name)
        tensors = {
            stored[name].name: value
            for file, stored in found.model
            for name, value in file.read(
                name for name, each in stored.items() if each.part == "vision_tower"
            ).items()
        }
        write_tensors(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    def compare(self, copy: Mapping[str, Tensor]) -> list[str]:
        """What to say where the copy inside the checkpoint is not this tower."""
        tensors, problems = read_weight_files(self.folder)
        if problems:
            raise DataError(f"vision tower: {'; '.join(problems)}")
        worst = 0.0
        for name, value in copy.items():
            if name not in tensors:
                continue
            try:
                with safe_open(tensors[name].file, "pt") as file:
                    own = file.get_tensor(name)
            except (OSError, SafetensorError) as error:
                raise DataError(f"{tensors[name].file} cannot be read: {error}") from None
            if own.shape != value.shape:
                raise DataError(
                    f"vision tower {self.folder}: {name} has another shape than its copy in the "
                    "checkpoint: give the tower that the checkpoint was trained on with --tower"
                )
            if not torch.equal(own.to(value.dtype), value):
                worst = max(worst, (own.float() - value.float()).abs().max().item())
        if not worst:
            return []
        return [
            f"the copy of the tower in the checkpoint is up to {worst:.2g} away from "
            f"{self.folder.name}; the latter is used, as the official loader does"
        ]


def find_tower(found: OfficialFolder, given: Path | None, search: Sequence[Path]) -> Tower:
    """The tower that was given or is named; where its weights are not there, or were trained, the
    copy inside.

    Raises DataError where there is neither, or nothing says what the copy's settings are.
    """
    copied = bool(found.shapes("vision_tower"))
    try:
        folder = find_model(
            given, found.settings.tower, search, what="vision tower", option="--tower"
        )
    except DataError as error:
        if not copied:
            raise
        raise DataError(
            f"{error}; a copy of its weights is in the checkpoint, but not its {CONFIG} and "
            f"{PREPROCESSOR}: a folder with these two is enough"
        ) from None
    for name in (CONFIG, PREPROCESSOR):
        if not (folder / name).is_file():
            raise DataError(
                f"vision tower: {folder} holds no {name}; copy it from the tower's repository"
            )
    if found.settings.tower_trained:
        if not copied:
            raise DataError(
                f"{found.settings.place} says unfreeze_mm_vision_tower: the vision tower was "
                "trained, and the weights hold no tower (model.vision_tower): finish the download"
            )
        note = "the vision tower was trained (unfreeze_mm_vision_tower): the one in the checkpoint"
        return Tower(folder=folder, from_copy=True, notes=(f"{note} is used",))
    if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
        return Tower(folder=folder, from_copy=False, notes=())
    if not copied:
        raise DataError(
            f"vision tower: {folder} holds no weights, and the checkpoint no copy of them; finish "
            "the download"
        )
    note = f"{folder} holds no weights: the copy of the tower in the checkpoint is used"
    return Tower(folder=folder, from_copy=True, notes=(note,))
