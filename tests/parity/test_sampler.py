"""Recorded sample orders: changed numbers are noticed, and what the official sampler refuses has to
be refused here.
"""

from pathlib import Path
from typing import Any

import pytest

from densekit.parity import order
from tests.parity.sets import bump, copy_set, edit_json, failing, run

ERROR = "AssertionError: Should not have zero length."
CASE = {
    "name": "with_error",
    "lengths": [3, -4, 0],
    "batch_size": 1,
    "world_size": 1,
    "seed": 0,
    "group_by_modality": True,
    "generator_seed": None,
}


@pytest.fixture
def recorded(golden: Path, tmp_path: Path) -> Path:
    return copy_set(golden, tmp_path, "sampler")


@pytest.mark.parametrize(
    ("keys", "quantity"),
    [
        (("cases", 3, "order", 4), "order"),
        (("split_to_even_chunks", 0, "chunks", 0, 1), "even_chunks"),
        (("stage2_train_lengths", 2), "lengths"),
        (("stage2_train_modality_lengths", 2), "modality_lengths"),
    ],
)
def test_changed_number_fails_its_quantity(
    recorded: Path, keys: tuple[str | int, ...], quantity: str
) -> None:
    assert not failing(recorded, "sampler")
    edit_json(recorded / "sampler" / "sampler.json", lambda value: bump(value, keys))
    assert set(failing(recorded, "sampler")) == {quantity}


def _with(recorded: Path, list_name: str, case: dict[str, Any]) -> dict[str, str]:
    path = recorded / "sampler" / "sampler.json"
    edit_json(path, lambda value: value[list_name].append(case))
    assert "refused" in run(recorded, "sampler")
    return failing(recorded, "sampler")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"batch_size": 0},
        {"world_size": 0, "group_by_modality": False},
        {"lengths": None},
        {"lengths": []},
    ],
)
def test_recorded_error_holds_when_the_input_is_refused(
    recorded: Path, change: dict[str, Any]
) -> None:
    assert not _with(recorded, "cases", {**CASE, **change, "error": ERROR})


def test_recorded_error_of_even_chunks_holds_when_refused(recorded: Path) -> None:
    case = {"indices": [0, 1], "lengths": [2, 3], "num_chunks": 0, "error": "ZeroDivisionError"}
    assert not _with(recorded, "split_to_even_chunks", case)


def test_accepting_a_recorded_error_fails(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recorded / "sampler" / "sampler.json"
    edit_json(path, lambda value: value["cases"].append({**CASE, "error": ERROR}))
    assert not failing(recorded, "sampler")

    class Lenient(order.OfficialOrder):
        def _draw_epoch(self):  # type: ignore[no-untyped-def]
            self._lengths = [length or 1 for length in self._lengths]
            return super()._draw_epoch()

    monkeypatch.setattr(order, "OfficialOrder", Lenient)
    message = failing(recorded, "sampler")["refused"]
    assert "cases[18] (with_error): accepted; the official code raised Assertion" in message


def test_refusing_a_recorded_order_fails(recorded: Path) -> None:
    message = _with(recorded, "cases", {**CASE, "order": [0, 1, 2]})["refused"]
    assert "the official code accepts it; sample 2 has length 0" in message
