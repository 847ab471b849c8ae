"""Every recorded output of the official scorers and prompts, and that a changed one is noticed."""

import json
from pathlib import Path

import pytest

from densekit.errors import DataError
from densekit.evaluate.scorers import ten_answers
from densekit.evaluate.scorers.contractions import CONTRACTIONS
from densekit.parity.compare import Quantities, run_case
from densekit.parity.evaluation import RECORDINGS, check_recording
from densekit.parity.find import find_cases, not_recorded
from tests.support.paths import SCORERS, full_scorers


@pytest.mark.parametrize("name", RECORDINGS)
def test_scorer_equals_the_recorded_outputs(name: str) -> None:
    quantities = Quantities()
    check_recording(SCORERS / f"{name}.json", quantities)
    assert quantities.values
    assert not {key: value for key, value in quantities.values.items() if not value.ok}


def test_every_case_of_the_full_set_is_equal() -> None:
    root = full_scorers()
    cases = list(find_cases(root))
    assert {case.name for case in cases} == set(RECORDINGS) and not not_recorded(root, cases)
    results = {case.name: run_case(case.check) for case in cases}
    failing = {
        f"{name} {key}": value.error
        for name, quantities in results.items()
        for key, value in quantities.items()
        if not value.ok
    }
    assert not failing
    assert "input_ids" in results["prompts"]


@pytest.mark.parametrize("name", RECORDINGS)
def test_changed_recording_is_noticed(name: str, tmp_path: Path) -> None:
    recorded = json.loads((SCORERS / f"{name}.json").read_text(encoding="utf-8"))
    for case in recorded["cases"]:
        case["output"] = _other(case["output"])
    (tmp_path / f"{name}.json").write_text(json.dumps(recorded), encoding="utf-8")
    (case,) = find_cases(tmp_path)
    assert any(not quantity.ok for quantity in run_case(case.check).values())


def test_part_of_a_set_names_what_is_not_there(tmp_path: Path) -> None:
    for name in ("gqa_answer", "mme_answer"):
        (tmp_path / f"{name}.json").write_bytes((SCORERS / f"{name}.json").read_bytes())
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    cases = list(find_cases(tmp_path))
    assert [case.name for case in cases] == ["gqa_answer", "mme_answer"]
    assert set(not_recorded(tmp_path, cases)) == set(RECORDINGS) - {"gqa_answer", "mme_answer"}


def test_recording_without_cases_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gqa_answer.json"
    path.write_text('{"cases": {}}', encoding="utf-8")
    with pytest.raises(DataError, match="must be a list"):
        check_recording(path, Quantities())


class _Met(dict[str, str]):
    """Contractions that remember which of them a text held."""

    def __init__(self) -> None:
        super().__init__(CONTRACTIONS)
        self.met: set[str] = set()

    def get(self, word: str, default: str) -> str:  # type: ignore[override]
        if word in self:
            self.met.add(word)
        return super().get(word, default)


def test_recordings_meet_forty_of_the_contractions(monkeypatch: pytest.MonkeyPatch) -> None:
    table = _Met()
    monkeypatch.setattr(ten_answers, "CONTRACTIONS", table)
    recorded = json.loads((SCORERS / "vqa_normalise.json").read_text(encoding="utf-8"))
    for case in recorded["cases"]:
        ten_answers.normalise.__wrapped__(case["input"])
    assert (len(table), len(table.met)) == (112, 40)


def _other(value: object) -> object:
    """Another output of the same shape."""
    if isinstance(value, dict):
        return {key: _other(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_other(entry) for entry in value] or ["other"]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value} other"
