"""What `densekit parity` prints: a table, what fails, and a last line that leaves nothing out."""

import json
from math import inf
from pathlib import Path

import pytest

from densekit.errors import DataError
from densekit.parity import report
from densekit.parity.compare import Quantity
from densekit.parity.report import Report, print_report, run_parity
from tests.parity.sets import copy_set
from tests.support.command_line import caller

GOOD = Quantity(max_abs_diff=2e-6, tolerance=1e-5, ok=True, worst_ratio=0.2)
SAME = Quantity(max_abs_diff=0.0, tolerance=0.0, ok=True, worst_ratio=0.0)
OFF = Quantity(max_abs_diff=3.0, tolerance=1e-5, ok=False, worst_ratio=3e5)
BROKEN = Quantity(
    max_abs_diff=None,
    tolerance=0.0,
    ok=False,
    worst_ratio=inf,
    error="weights file clip_dci/stage2_grads.safetensors cannot be read: header too large",
)
LONG = "tokenization/plain_legacyfalse_max2048"
HOLDS = Report(
    cases={
        "clip_dci/stage1": {"input_ids": SAME, "loss": GOOD},
        LONG: {"input_ids": SAME},
    },
    unsupported=["mgm"],
    not_recorded=["LoRA runs"],
)
FAILS = Report(
    cases={**HOLDS.cases, "clip_dci/stage2": {"projector_output_statistics_shape": BROKEN}},
    unsupported=[],
    not_recorded=[],
)


def _printed(
    report: Report, capsys: pytest.CaptureFixture[str], *, verbose: bool = False
) -> list[str]:
    print_report(report, verbose=verbose)
    captured = capsys.readouterr()
    assert not captured.err and "\x1b" not in captured.out
    lines = [line.rstrip() for line in captured.out.splitlines()]
    assert all(len(line) <= 80 for line in lines[:-1])
    return lines


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_summary_has_one_line_per_case(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in _printed(HOLDS, capsys)]
    assert ["clip_dci/stage1", "2", "of", "2", "0.2", "loss"] in lines
    assert [LONG, "1", "of", "1", "exact"] in lines
    assert ["mgm", "-", "-", "not", "supported", "yet"] in lines
    assert not any("input_ids" in line for line in lines)


def test_last_line_names_what_is_not_covered(capsys: pytest.CaptureFixture[str]) -> None:
    assert _printed(HOLDS, capsys)[-1] == (
        "parity holds for 2 of 3 cases; not supported: mgm; not recorded: LoRA runs"
    )
    assert HOLDS.ok and HOLDS.as_json()["not_recorded"] == ["LoRA runs"]


def test_failing_quantity_is_shown_with_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _printed(FAILS, capsys)
    assert lines[-1] == "parity fails for 1 of 3 cases; failed: clip_dci/stage2"
    text = " ".join(" ".join(lines).split())
    assert "0 of 1 differs" in text and "FAILS" in text and "header too large" in text
    assert "loss 2e-06" not in text
    assert not FAILS.ok and FAILS.as_json()["ok"] is False


def test_difference_beyond_its_tolerance_shows_its_ratio(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report(cases={"a": {"loss": OFF, "logits": GOOD}}, unsupported=[], not_recorded=[])
    lines = [line.split() for line in _printed(report, capsys)]
    assert ["a", "1", "of", "2", "3e+05", "loss"] in lines
    assert ["loss", "3", "tolerance", "1e-05", "FAILS"] in lines


def test_verbose_shows_every_quantity(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in _printed(HOLDS, capsys, verbose=True)]
    assert ["loss", "2e-06", "tolerance", "1e-05", "ok"] in lines
    assert ["input_ids", "0", "exact", "ok"] in lines


def test_command_reports_progress_on_stderr_and_verdict_last(
    golden: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = caller(monkeypatch, capsys)
    root = copy_set(golden, tmp_path, "lora", "sampler")
    (root / "mgm").mkdir()
    monkeypatch.setattr("densekit.parity.find.UNSUPPORTED", ("mgm",))
    code, out, err = call("parity", root, "--verbose")
    assert code == 0 and "parity  2/2  100%" in err and "modality_lengths" in out
    assert out.splitlines()[-1].startswith("parity holds for 2 of 3 cases; not supported: mgm;")

    (root / "clip_xyz").mkdir()
    code, out, err = call("parity", root, "--json")
    result = json.loads(out)
    assert (code, err) == (1, "") and set(result["cases"]) == {"lora", "sampler", "clip_xyz"}
    assert (result["ok"], result["unsupported"]) == (False, ["mgm"])
    assert result["cases"]["lora"] == {
        "target_modules": {"max_abs_diff": 0.0, "tolerance": 0.0, "ok": True, "worst_ratio": 0.0}
    }
    assert "not a known kind" in result["cases"]["clip_xyz"]["case"]["error"]


def test_folder_without_recordings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no recorded case"):
        run_parity(tmp_path, progress=False)
    with pytest.raises(DataError, match="is not a folder"):
        run_parity(tmp_path / "nowhere", progress=False)


def test_a_relative_folder_is_named_from_its_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recordings name files of folders beside theirs."""
    seen: list[Path] = []
    monkeypatch.setattr(report, "find_cases", lambda root: seen.append(root) or [])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        report.run_parity(Path("recorded"), progress=False)
    assert seen == [tmp_path / "recorded"]
