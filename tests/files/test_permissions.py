"""What is written has the permissions that the umask says, whoever writes it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from densekit.files.permissions import follow_umask, umask
from densekit.model.weights import save_weights
from densekit.runs.layout import open_run
from tests.support.launching import stub_math
from tests.support.workplace import Workplace

MASKS = [0o077, 0o027, 0o022, 0o002, 0o000]


@pytest.fixture(params=MASKS, ids=oct)
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(path: Path) -> set[int]:
    """Permissions of a folder and of everything in it."""
    return {place.stat().st_mode & 0o777 for place in (path, *path.rglob("*"))}


def allowed(mask: int) -> set[int]:
    return {0o777 & ~mask, 0o666 & ~mask}


def test_umask_is_read_without_being_changed(mask: int) -> None:
    assert umask() == mask and os.umask(mask) == mask


def test_folder_and_files_of_others_follow_it(mask: int, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    (folder / "inside").mkdir(mode=0o700, parents=True)
    (folder / "inside" / "file").touch(mode=0o600)
    folder.chmod(0o755)
    outside = tmp_path / "outside"
    outside.touch(mode=0o600)
    (folder / "link").symlink_to(outside)
    follow_umask(folder)
    assert modes(folder / "inside") | {folder.stat().st_mode & 0o777} == allowed(mask)
    assert outside.stat().st_mode & 0o777 == 0o600 & ~mask, "a link's target is not ours"


def test_weights_and_run_folders_follow_it(mask: int, tmp_path: Path) -> None:
    save_weights({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask
    run = open_run(tmp_path / "runs", stub_math())
    assert modes(run.path) == allowed(mask)


@pytest.mark.parametrize("recipe", ["tiny_stage1", "tiny_stage2", "tiny_stage2_lora"])
def test_everything_that_a_run_wrote_follows_it(workplace: Workplace, recipe: str) -> None:
    run = workplace.run_dir(recipe)
    assert modes(run) == allowed(umask()), [
        (path, oct(path.stat().st_mode)) for path in run.rglob("*")
    ]
    assert modes(workplace.root / ".cache") <= allowed(umask())
