"""`densekit evaluate`: what it prints of an answer file, and of several models."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from densekit.errors import DataError
from densekit.launch.evaluation import Evaluated
from densekit.runs.evaluations import EvaluationFolder
from tests.support.command_line import Cli


def _score(run_cli: Cli, folder: Path, benchmark: str, texts: list[str], **fields: object) -> str:
    """What is printed of one question for each text."""
    asked, said = folder / "q.jsonl", folder / "a.jsonl"
    known = {"text": "Which?", "image": "i1", "options": ["red", "green", "blue"], "gold": ["A"]}
    rows = [{"id": str(number), **known, **fields} for number in range(len(texts))]
    asked.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    answers = [{"question_id": number, "text": text} for number, text in enumerate(texts)]
    said.write_text("\n".join(map(json.dumps, answers)), encoding="utf-8")
    found = run_cli(
        "evaluate", said, "--as", "llava", "--benchmark", benchmark, "--questions", asked
    )
    assert found.code == 0, found.err
    return found.out


def test_value_figures_and_what_they_rest_on(tmp_path: Path, run_cli: Cli) -> None:
    out = _score(run_cli, tmp_path, "mmb_cn", ["A", "maybe"])
    assert out.startswith("MMB-CN mmbench_dev_cn_20231003, faithful: 50.00\n\nfigure ")
    assert out.endswith(
        "first_pass_accuracy  50.00\n\n2 questions\n1 answer that nothing could be read out of\n"
    )
    assert "\n1 question\n" in _score(run_cli, tmp_path, "mmb_cn", ["A"])


def test_number_that_is_never_the_papers_says_why(tmp_path: Path, run_cli: Cli) -> None:
    out = _score(run_cli, tmp_path, "vizwiz", ["a"], gold=["a"] * 10)
    assert out.splitlines()[-1].startswith("OTHER PROTOCOL: the paper's split is test, whose ")


@pytest.mark.parametrize(
    ("benchmark", "count", "fields", "line"),
    [
        ("mmmu", 900, {}, "900 answers without a letter, for which one of 3 was drawn"),
        (
            "mathvista",
            1_000,
            {"options": [], "answer_type": "integer"},
            "1,000 answers read by rules in place of the retired judge",
        ),
    ],
)
def test_notes_in_words(
    benchmark: str,
    count: int,
    fields: dict[str, object],
    line: str,
    tmp_path: Path,
    run_cli: Cli,
) -> None:
    out = _score(run_cli, tmp_path, benchmark, ["no idea"] * count, **fields)
    assert f"\n{line}\n" in out


@pytest.mark.parametrize("ending", [DataError("its answers are lost"), 7])
def test_what_was_scored_before_a_failure_is_printed(
    tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch, ending: DataError | int
) -> None:
    """Of `evaluate A B --json`, where B ends badly."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()

    def evaluate(source: Path, **_: object) -> Evaluated:
        if source == first:
            return Evaluated(code=0, folder=EvaluationFolder(first))
        if isinstance(ending, DataError):
            raise ending
        return Evaluated(code=ending)

    chosen = SimpleNamespace(execution=None, launcher=None)
    monkeypatch.setattr("densekit.launch.evaluation.evaluate", evaluate)
    monkeypatch.setattr(
        "densekit.launch.evaluation_selection.select_for_evaluation", lambda *_, **__: chosen
    )
    result = run_cli("evaluate", first, second, "--json")
    assert json.loads(result.out) == {str(first): []}
    assert result.code == (ending if isinstance(ending, int) else DataError.exit_code)
