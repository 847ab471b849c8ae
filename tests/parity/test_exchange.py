"""Official checkpoint folders, imported, are what the official loader made of them; and a changed
number is noticed.
"""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from densekit.parity.compare import Quantity, run_case
from densekit.parity.find import find_cases, not_recorded
from densekit.parity.report import run_parity
from tests.support.needs import needs
from tests.support.paths import RECORDED_EXCHANGE

pytestmark = pytest.mark.ranks

EVERY = {
    *("connector", "connector_type", "vocabulary", "pixel_statistics", "prompt_text"),
    *("prompt_ids", "sequence_length", "logits", "logsumexp", "argmax", "generated_ids"),
    *("batch_logits", "batch_generated_ids"),
}


def test_committed_folders_hold(golden_exchange: Path) -> None:
    cases = {case.name: case for case in find_cases(golden_exchange)}
    assert list(cases) == [
        "clip_dci/lora",
        "clip_dci/stage1_into_checkpoint",
        "clip_dci/stage2",
    ]
    assert not_recorded(golden_exchange, [*cases.values()]) == []
    results = {name: run_case(case.check) for name, case in cases.items()}
    off = {name: q for case in results.values() for name, q in case.items() if not q.ok}
    assert not off
    assert results["clip_dci/lora"].keys() - EVERY == {"merged_names", "merged_weights"}
    assert results["clip_dci/stage2"].keys() >= EVERY
    assert results["clip_dci/stage2"]["logits"].tolerance == 5e-5
    assert results["clip_dci/lora"]["merged_weights"].tolerance == 0


def test_changed_numbers_are_noticed(golden_exchange: Path, tmp_path: Path) -> None:
    shutil.copytree(golden_exchange / "base", tmp_path / "base")
    for name in ("lora", "expected_lora"):
        shutil.copytree(
            golden_exchange / "given" / "clip_dci" / name, tmp_path / "given" / "clip_dci" / name
        )
    expected = tmp_path / "given" / "clip_dci" / "expected_lora"
    arrays = load_file(expected / "loader.safetensors")
    arrays["v1/p1/last_logits"][7] += 1e-3
    arrays["v1/p2/generated"][3] += 1
    arrays["v1/batch/with_text_side_left/first_scores"][1, 5] += 1e-3
    save_file(arrays, expected / "loader.safetensors")
    weights = load_file(expected / "merged_weights.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] *= 1 + 2**-20
    save_file(weights, expected / "merged_weights.safetensors")
    loader = json.loads((expected / "loader.json").read_text())
    loader["prompts"][0]["input_ids"][5] += 1
    (expected / "loader.json").write_text(json.dumps(loader))
    assert failing(tmp_path) == {
        *("logits", "generated_ids", "batch_logits", "merged_weights", "prompt_ids"),
    }


def failing(root: Path) -> set[str]:
    (case,) = find_cases(root)
    quantities: dict[str, Quantity] = run_case(case.check)
    return {name for name, quantity in quantities.items() if not quantity.ok}


@pytest.mark.slow
def test_every_recorded_folder_holds() -> None:
    if not RECORDED_EXCHANGE.is_dir():
        needs("recorded", f"{RECORDED_EXCHANGE} does not exist")
    report = run_parity(RECORDED_EXCHANGE, progress=False)
    assert report.ok and not report.unsupported and len(report.cases) >= 10
