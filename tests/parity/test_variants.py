"""The recorded variants hold, and a number that was changed is noticed."""

import json
import shutil
from pathlib import Path

import pytest

from densekit.parity.compare import run_case
from densekit.parity.find import find_cases, not_recorded, unsupported
from tests.parity.sets import run
from tests.support.paths import GOLDEN_VARIANTS

pytestmark = pytest.mark.ranks

NAMES = ("anyres_clip_dci", "anyres_clip_dci_zero", "mgm", "tuned_clip_dci")


def test_every_recorded_variant_is_a_case() -> None:
    cases = [*find_cases(GOLDEN_VARIANTS)]
    assert tuple(case.name for case in cases) == NAMES
    assert {case.kind for case in cases} == {"variant"}
    assert unsupported(GOLDEN_VARIANTS) == not_recorded(GOLDEN_VARIANTS, cases) == []


@pytest.mark.parametrize(
    "name", [*NAMES[1:3], *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES[::3])]
)
def test_a_recorded_variant_holds(name: str) -> None:
    found = run(GOLDEN_VARIANTS, name)
    assert {"curve_loss", "curve_lr", "final_weights", "order", "input_ids"} <= found.keys()
    assert {key: value for key, value in found.items() if not value.ok} == {}


def test_helpers_and_batch_of_anyres_hold(golden: Path) -> None:
    cases = {case.name: case for case in find_cases(golden) if case.kind == "anyres"}
    assert set(cases) == {
        "anyres/helpers",
        "anyres/forward_dci_spatial_unpad",
        "anyres/forward_sti_spatial_unpad",
    }
    for name, case in cases.items():
        bad = {key: value for key, value in run_case(case.check).items() if not value.ok}
        assert bad == {}, name


def test_a_changed_grid_is_noticed(golden: Path, tmp_path: Path) -> None:
    shutil.copytree(golden / "anyres", tmp_path / "anyres")
    path = tmp_path / "anyres" / "helpers.json"
    values = json.loads(path.read_text())
    values["grid"][3]["grid"][0] += 1
    path.write_text(json.dumps(values))
    assert not run(tmp_path, "anyres/helpers")["grid"].ok
