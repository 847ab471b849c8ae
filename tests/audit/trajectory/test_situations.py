"""`densekit trajectory` on simulated trainings: every situation by name, 50 steps in."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.trajectory import CASES, LENGTH, Case, Curves, findings, is_right, training
from densekit.audit.trajectory.compare import judge
from densekit.audit.trajectory.published import read_published
from tests.support.trajectory import write_state

SEEDS = (0, 1)
"""benchmarks/trajectory.py counts errors over 20."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_every_situation_is_named(tmp_path: Path, name: str, seed: int) -> None:
    case = CASES[name](seed, Curves())
    found = findings(case, tmp_path)
    assert is_right(case, found), found


@pytest.mark.parametrize("falls", ["power", "exponential", "plateau"])
def test_a_steep_common_fall_is_no_common_order(tmp_path: Path, falls: str) -> None:
    """As in stage 1: both records fall by several nats in the steps that are compared."""
    at = np.arange(1, 101)
    fall = {
        "power": 1.5 + 5.3 * at**-0.45,
        "exponential": 2 + 5 * np.exp(-at / 8),
        "plateau": 2 + 3 / (1 + np.exp((at - 20) / 2)),
    }[falls]
    alike = training(order=0, projector=0, curves=Curves(), steps=100)
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(0, 0.03, (2, 100))
        run, file = (replace(alike, losses=fall + own) for own in noise)
        run = replace(run, lengths=np.full(100, 800.0))
        case = Case(run=run, log=file.log(), length=100, losses="other_order", steps=100)
        assert findings(case, tmp_path)[0] in ("other_order", "undecided")


def test_another_step_than_the_file_says_is_named_exactly(tmp_path: Path) -> None:
    case = CASES["the same order, shifted"](6, Curves())
    path = write_state(tmp_path / "trainer_state.json", case.log, max_steps=LENGTH)
    records = case.run.records(50)
    evidence, found = judge(records, read_published(path), case.facts(records))
    assert evidence.alignment.best is not None and evidence.alignment.best.lag == 7
    assert "7 steps later in the file" in found[0].message and found[0].against


def test_an_offset_of_the_wrong_sign_is_not_coarse_positions(tmp_path: Path) -> None:
    case = CASES["coarse positions"](0, Curves())
    path = write_state(tmp_path / "trainer_state.json", case.log, max_steps=LENGTH)
    records = case.run.records(50)
    facts = case.facts(records)
    _, coarse = judge(records, read_published(path), facts)
    assert coarse[0].kind == "coarse_positions" and "positions=bf16" in coarse[0].message
    for other in (replace(facts, stage=1), replace(facts, positions="bf16")):
        _, found = judge(records, read_published(path), other)
        assert found[0].kind == "offset" and found[0].against


def test_a_run_with_coarse_positions_and_a_file_without(tmp_path: Path) -> None:
    exact, coarse = (
        training(order=3, projector=seed, curves=Curves(), coarse=bool(seed)) for seed in (0, 1)
    )
    path = write_state(tmp_path / "trainer_state.json", exact.log(), max_steps=LENGTH)
    records = coarse.records(50)
    facts = Case(run=coarse, log=[], losses="same").facts(records)
    _, found = judge(records, read_published(path), replace(facts, positions="bf16"))
    assert found[0].kind == "coarse_positions" and "exact positions in the file" in found[0].message


def test_losses_of_a_run_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    case = CASES["another projector seed"](0, Curves())
    broken = case.run.losses.copy()
    broken[[4, 30]] = np.nan
    case = replace(case, run=replace(case.run, losses=broken))
    found = findings(case, tmp_path)
    assert found == ["other_projector_seed", "not_finite"]


def test_a_schedule_of_another_length_is_no_other_learning_rate(tmp_path: Path) -> None:
    """The same data for half as long: the same order, and rates that fall sooner."""
    curves = Curves()
    run = training(order=5, projector=5, curves=curves)
    file = training(order=5, projector=6, curves=curves, steps=LENGTH // 2)
    samples = training(order=5, projector=6, curves=curves)
    file = replace(file, losses=samples.losses[: LENGTH // 2], lengths=samples.lengths)
    case = Case(run=run, log=file.log(), length=LENGTH // 2, losses="other_projector_seed")
    found = findings(case, tmp_path)
    assert found == ["other_projector_seed", "other_length"]
