"""Comparing arms of stored runs: what is said, and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from densekit.cli.verdict_tables import gain_lines
from densekit.errors import DataError, UsageError
from densekit.evaluate.arms import read_arm
from densekit.evaluate.compare import compare
from densekit.evaluate.power import power_of
from densekit.evaluate.verdict import judge
from densekit.recipes.paper import Paper, load_paper
from densekit.runs.calibrations import Calibrations
from densekit.runs.layout import RunDir
from densekit.runs.verdicts import Gain
from tests.evaluate.scored_runs import drawn, evaluated, made_run

DCI, NONE = "vicuna7b_clip_stage2", "vicuna7b_clip_none_stage2"


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper()


def arm(folder: Path, recipe: str, share: float, seeds: range) -> list[Path]:
    """Runs of a recipe, each with its answers to GQA."""
    runs = []
    for seed in seeds:
        runs.append(made_run(folder, recipe, seed=seed))
        evaluated(runs[-1], drawn(share, seed=seed + 100 * len(recipe)))
    return runs


def gain(a: list[Path], b: list[Path], paper: Paper) -> Gain:
    (found,) = compare(read_arm(a), read_arm(b), paper).lines
    return found


def test_a_large_difference_of_three_seeds_is_supported(tmp_path: Path, paper: Paper) -> None:
    dci, none = arm(tmp_path, DCI, 0.75, range(3)), arm(tmp_path, NONE, 0.65, range(3))
    found = gain(dci, none, paper)
    assert found.claim == "SUPPORTED" and found.runs_needed is None and found.effect is None
    assert found.low < found.difference < found.high and found.low > 0
    assert found.difference == pytest.approx(found.a - found.b)
    assert found.seed is not None and found.seed.own
    assert found.seed.source == "3 seeds of A, 3 seeds of B"
    assert found.reported == 1.8 and found.note == ""
    back = gain(none, dci, paper)
    assert back.claim == "CONTRADICTED" and back.difference == pytest.approx(-found.difference)
    assert back.reported is None, "the paper shows the other direction"
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    whole = compare(read_arm(dci), read_arm(none), paper)
    assert (whole.recipe, whole.baseline) == (DCI, NONE)
    assert whole.runs == tuple(RunDir(path).sha256 for path in dci)


def test_single_runs_take_the_prior_and_say_so(tmp_path: Path, paper: Paper) -> None:
    dci, none = arm(tmp_path, DCI, 0.70, range(1)), arm(tmp_path, NONE, 0.69, range(1))
    found = gain(dci, none, paper)
    assert found.seed is not None and not found.seed.own
    assert (found.seed.sd, found.seed.source) == (0.47, paper.noise["gqa"].seed_source)
    assert found.claim == "NOT SHOWN"
    assert found.effect == 1.8, "the gain that the paper reports"
    assert "McNemar p" in found.note and "questions right in A alone" in found.note


def test_mcnemar_counts_questions_and_is_of_two_runs_alone(tmp_path: Path, paper: Paper) -> None:
    a, b = made_run(tmp_path, DCI), made_run(tmp_path, NONE)
    scores = drawn(0.7)
    flipped = [
        replace(score, score=1 - score.score) if number < 9 else score
        for number, score in enumerate(scores)
    ]
    evaluated(a, flipped)
    evaluated(b, scores)
    found = gain([a], [b], paper)
    gained = sum(score.score == 0 for score in scores[:9])
    assert found.note.startswith(
        f"these two models: {gained} questions right in A alone, {9 - gained} in B alone"
    )
    c = made_run(tmp_path, NONE, seed=1)
    evaluated(c, scores)
    assert "McNemar" not in gain([a], [b, c], paper).note


def test_without_any_seed_term_there_is_no_claim(tmp_path: Path, paper: Paper) -> None:
    silent = paper.model_copy(update={"noise": {}})
    dci, none = arm(tmp_path, DCI, 0.9, range(2)), arm(tmp_path, NONE, 0.1, range(1))
    found = gain(dci[:1], none, silent)
    assert (found.claim, found.p, found.seed, found.runs_needed) == ("NOT SHOWN", 1, None, None)
    assert "nothing says how far seeds lie apart" in found.note
    assert gain(dci, none, silent).seed is not None, "two runs of one arm are enough"


def test_how_many_runs_would_show_it(tmp_path: Path, paper: Paper) -> None:
    dci, none = arm(tmp_path, DCI, 0.70, range(2)), arm(tmp_path, DCI, 0.70, range(3, 5))
    own = gain(dci, none, paper.model_copy(update={"baselines": ()}))
    assert own.claim == "NOT SHOWN" and own.effect == pytest.approx(own.difference)
    ahead = own if own.difference > 0 else gain(none, dci, paper)
    behind = gain(none, dci, paper) if own.difference > 0 else own
    assert behind.effect is not None and behind.effect < 0 and behind.runs_needed is None
    assert ahead.effect is not None and ahead.effect > 0


@pytest.mark.parametrize(
    ("images", "claim"), [(2, "NOT SHOWN"), (5, "NOT SHOWN"), (6, "SUPPORTED")]
)
def test_images_that_all_say_the_same_prove_no_more_than_their_number(
    tmp_path: Path, paper: Paper, images: int, claim: str
) -> None:
    runs = [made_run(tmp_path, recipe) for recipe in (DCI, NONE)]
    for run, share in zip(runs, (2.0, -2.0), strict=True):
        evaluated(run, drawn(share, questions=2 * images, images=images))
    found = gain(runs[:1], runs[1:], paper)
    assert (found.a, found.b, found.claim) == (100, 0, claim)
    assert found.p == pytest.approx(2 * 0.5**images, rel=0.2), "that of a sign test"
    assert found.low < 100 < found.high


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path, paper: Paper) -> None:
    dci, none = arm(tmp_path, DCI, 0.7, range(1)), arm(tmp_path, NONE, 0.6, range(1))
    path = dci[0] / "evaluations" / ("0" * 16) / "scores" / "gqa.faithful.jsonl"
    path.write_text(path.read_text().replace('"score": 1.0', '"score": NaN', 1))
    with pytest.raises(DataError, match=r"GQA: the stored value is .* and its scores make nan"):
        gain(dci, none, paper)


def test_a_limit_is_marked(tmp_path: Path, paper: Paper) -> None:
    runs = [made_run(tmp_path, name) for name in (DCI, NONE)]
    for run in runs:
        evaluated(run, drawn(0.7), available=1200)
    assert gain([runs[0]], [runs[1]], paper).note.startswith("INCOMPLETE: 600 of 1,200 questions")


def test_holm_is_over_the_benchmarks(tmp_path: Path, paper: Paper) -> None:
    runs = [made_run(tmp_path, name) for name in (DCI, NONE)]
    for run, share in zip(runs, (0.71, 0.66), strict=True):
        evaluated(run, drawn(share))
    alone = gain([runs[0]], [runs[1]], paper)
    for run in runs:
        evaluated(run, drawn(0.5), "textvqa", name="1" * 16)
    found = compare(read_arm(runs[:1]), read_arm(runs[1:]), paper)
    by_name = {line.benchmark: line for line in found.lines}
    assert list(by_name) == ["gqa", "textvqa"]
    assert by_name["textvqa"].p == 1 and by_name["textvqa"].difference == 0
    assert by_name["gqa"].p == pytest.approx(2 * alone.p)
    assert by_name["gqa"].low == alone.low, "intervals are of one benchmark each"


def test_what_one_arm_alone_was_asked_is_left_out(tmp_path: Path, paper: Paper) -> None:
    a, b = made_run(tmp_path, DCI), made_run(tmp_path, NONE)
    evaluated(a, drawn(0.7))
    evaluated(b, drawn(0.7), "textvqa")
    with pytest.raises(DataError, match="has a value in all runs: A has gqa, B textvqa"):
        compare(read_arm([a]), read_arm([b]), paper)
    evaluated(b, drawn(0.7), name="1" * 16)
    found = compare(read_arm([a]), read_arm([b]), paper)
    assert [line.benchmark for line in found.lines] == ["gqa"]
    assert found.left_out == ("TextVQA (1 of 2 runs)",)
    assert list(gain_lines(found, why=False))[-1].endswith("every run: TextVQA (1 of 2 runs)")


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("data_sha256", "f" * 64, "was asked with other data"),
        ("prompt_sha256", "f" * 64, "was asked with other prompts"),
        ("dtype", "bf16", "was asked with another dtype"),
        ("batch_size", 8, "was asked with another batch size"),
        ("split", "val", "was asked with another split"),
    ],
)
def test_arms_that_were_asked_otherwise(
    tmp_path: Path, paper: Paper, field: str, value: object, problem: str
) -> None:
    a, b = made_run(tmp_path, DCI), made_run(tmp_path, NONE)
    evaluated(a, drawn(0.7))
    evaluated(b, drawn(0.7), **{field: value})
    with pytest.raises(DataError, match=f"GQA: .*{b.name} {problem}"):
        compare(read_arm([a]), read_arm([b]), paper)


def test_other_questions_or_images_are_refused(tmp_path: Path, paper: Paper) -> None:
    a, b, c = made_run(tmp_path, DCI), made_run(tmp_path, NONE), made_run(tmp_path, NONE, seed=1)
    evaluated(a, drawn(0.7))
    evaluated(b, drawn(0.7)[:-1])
    evaluated(c, [replace(score, cluster=f"x{score.cluster}") for score in drawn(0.7)])
    for other, count in ((b, 599), (c, 600)):
        with pytest.raises(DataError, match=rf"{other.name} was asked {count} questions"):
            compare(read_arm([a]), read_arm([other]), paper)


def test_other_bytes_of_an_image_are_refused(tmp_path: Path, paper: Paper) -> None:
    a, b = made_run(tmp_path, DCI), made_run(tmp_path, NONE)
    evaluated(a, drawn(0.7))
    evaluated(b, drawn(0.7), image_sha256="4" * 64)
    with pytest.raises(DataError, match=f"GQA: .*{b.name} was shown another image with"):
        compare(read_arm([a]), read_arm([b]), paper)


def test_the_order_of_questions_does_not_matter(tmp_path: Path, paper: Paper) -> None:
    a, b, c = made_run(tmp_path, DCI), made_run(tmp_path, NONE), made_run(tmp_path, NONE, seed=1)
    evaluated(a, drawn(0.7))
    evaluated(b, drawn(0.65))
    evaluated(c, drawn(0.65)[::-1])
    assert gain([a], [b], paper) == gain([a], [c], paper)


def test_arms_are_repetitions(tmp_path: Path) -> None:
    runs = arm(tmp_path, DCI, 0.7, range(2))
    assert read_arm(runs).name == DCI and not read_arm(runs).one_stage1
    with pytest.raises(UsageError, match="is given twice"):
        read_arm([runs[0], runs[0]])
    settings = ["optimizer.learning_rate=1e-5", "optimizer.epochs=2"]
    other = made_run(tmp_path, DCI, seed=5, settings=settings)
    evaluated(other, drawn(0.7))
    with pytest.raises(
        UsageError,
        match=r"no repetitions of one recipe: recipe\.optimizer\.epochs, "
        r"recipe\.optimizer\.learning_rate differ",
    ):
        read_arm([*runs, other])
    replay = tmp_path / f"{runs[0].name}.replay1"
    shutil.copytree(runs[0], replay)
    with pytest.raises(UsageError, match="is the same training as"):
        read_arm([runs[0], replay])


def test_a_run_of_both_arms_is_refused(tmp_path: Path, paper: Paper) -> None:
    runs = arm(tmp_path, DCI, 0.7, range(2))
    with pytest.raises(UsageError, match="is given twice"):
        compare(read_arm(runs), read_arm(runs[1:]), paper)


def test_runs_without_results_are_refused(tmp_path: Path) -> None:
    run = made_run(tmp_path, DCI)
    with pytest.raises(DataError, match=r"no faithful result of any benchmark: `densekit evaluate"):
        read_arm([run])
    evaluated(run, drawn(0.7))
    with pytest.raises(DataError, match="no fixed result"):
        read_arm([run], "fixed")
    RunDir(run).set_status("failed")
    with pytest.raises(DataError, match=r"is not complete \(failed\): `densekit run` finishes it"):
        read_arm([run])
    with pytest.raises(DataError, match="neither a run nor an imported checkpoint"):
        read_arm([tmp_path])


def test_runs_that_share_their_stage_1_say_so(tmp_path: Path, paper: Paper) -> None:
    dci, none = arm(tmp_path, DCI, 0.7, range(2)), arm(tmp_path, NONE, 0.6, range(2))
    for run in dci:
        text = (run / "math.json").read_text()
        start = RunDir(run).math.starts_from
        assert start is not None
        (run / "math.json").write_text(text.replace(start, "a" * 64))
    assert read_arm(dci).one_stage1
    assert "its seed noise is stage 2's alone" in gain(dci, none, paper).note


def test_benchmarks_of_one_title_are_told_apart(tmp_path: Path, paper: Paper) -> None:
    runs = [made_run(tmp_path, name, seed=seed) for name in (DCI, NONE) for seed in (1, 2)]
    for seed, run in enumerate(runs):
        for number, name in enumerate(("held_out", "held_out_shuffled", "gqa")):
            evaluated(run, drawn(0.6, seed=seed), name, name=f"{number}" * 16)
    a, b = read_arm(runs[:2]), read_arm(runs[2:])
    titles = ["GQA", "held-out questions, images in place", "held-out questions, images shuffled"]
    assert [line.title for line in compare(a, b, paper).lines] == titles
    shown = judge(a, None, paper, Calibrations()).lines
    assert {line.title for line in shown if line.ours is not None} == {*titles}


def test_the_power_of_a_comparison_is_that_of_its_noise(tmp_path: Path, paper: Paper) -> None:
    dci, none = arm(tmp_path, DCI, 0.75, range(3)), arm(tmp_path, NONE, 0.65, range(3))
    found = compare(read_arm(dci), read_arm(none), paper)
    (line,) = found.lines
    (row,) = power_of(found)
    assert line.seed is not None and (row.recipe, row.baseline) == (DCI, NONE)
    noise = (line.seed.sd, line.question_sd, line.difference)
    assert (row.seed_sd, row.question_sd, row.effect) == pytest.approx(noise, rel=5e-3)
    assert row.runs is not None and row.runs <= 3
    assert row.shown[2] > row.shown[3] > row.shown[5] > 0 and row.shown[3] < line.difference
    unknown = line.model_copy(update={"seed": None})
    assert power_of(found.model_copy(update={"lines": (unknown,)})) == []
