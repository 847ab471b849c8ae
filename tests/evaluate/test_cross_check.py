"""lmms-eval's side of a cross-check as files: tasks and logs; and both opinions side by side."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from densekit.errors import DataError, UsageError
from densekit.evaluate.cross_check.compare import compare_answers
from densekit.evaluate.cross_check.samples import Imported, read_samples
from densekit.evaluate.cross_check.tasks import Task, write_task
from densekit.evaluate.data import BenchmarkData, folder_of
from densekit.evaluate.planning import plan_benchmark
from densekit.evaluate.protocols import get_protocol
from densekit.launch import cross_check
from densekit.spec.roots import Roots
from tests.evaluate.made import question, score

TASK = Task(name="densekit_mme", benchmark="mme", questions=("b", "a"))


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    folder = tmp_path / "data" / "benchmarks" / "MME" / "images"
    folder.mkdir(parents=True)
    (folder / "i1.png").write_bytes(b"the picture")
    return Roots(data=tmp_path / "data", models=tmp_path, cache=tmp_path / "cache")


def planned(roots: Roots, *questions: Any, name: str = "mme") -> Any:
    protocol = get_protocol(name).model_copy(update={"expected": None})
    data = BenchmarkData(
        protocol=protocol, questions=questions, images=f"{folder_of('mme')}/images"
    )
    return plan_benchmark(data, roots, limit=len(questions), batch_size=None)


def test_a_task_is_the_plan_as_rows(roots: Roots, tmp_path: Path) -> None:
    asked, plan = planned(
        roots, question("b", ("yes",)), question("a", text="Why? {{x}}", image=None)
    )
    task = write_task(tmp_path / "tasks", asked, plan, roots)
    assert (task.name, task.benchmark) == ("densekit_mme", "mme")
    table = pq.read_table(tmp_path / "tasks" / "mme.parquet")
    rows = {row["question_id"]: row for row in table.to_pylist()}
    assert [row["question_id"] for row in table.to_pylist()] == [*task.questions]
    assert rows["b"]["image"] == {"bytes": b"the picture", "path": "i1.png"}
    assert rows["b"]["gold"] == ["yes"] and rows["a"]["image"] is None
    assert rows["a"]["asked"].startswith("Why? {{x}}\n"), "as planned, no template"
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    settings = yaml.safe_load((tmp_path / "tasks" / "mme.yaml").read_text(encoding="utf-8"))
    assert settings["generation_kwargs"]["max_new_tokens"] == asked.protocol.decoding.max_new_tokens
    assert settings["doc_to_text"] == "asked" and settings["test_split"] == "test"


def test_what_cannot_be_a_task_is_refused(roots: Roots, tmp_path: Path) -> None:
    asked, plan = planned(roots, question("b"))
    (roots.data / "benchmarks" / "MME" / "images" / "i1.png").write_bytes(b"another")
    with pytest.raises(DataError, match=r"i1\.png is not the one that the evaluation was made for"):
        write_task(tmp_path / "tasks", asked, plan, roots)
    sampled, choices = planned(roots, question("b", "A", options=("x", "y")), name="mmmu")
    with pytest.raises(DataError, match="samples its answers: two programs do not draw the same"):
        write_task(tmp_path / "tasks", sampled, choices, roots)


def write_logs(folder: Path, rows: list[dict[str, Any]], value: Any = 0.5) -> Path:
    """What lmms-eval leaves of TASK."""
    place = folder / "logs" / "densekit"
    place.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (place / "2026_samples_densekit_mme.jsonl").write_text(lines, encoding="utf-8")
    results = {"results": {TASK.name: {"exact_match,none": value}}}
    (place / "2026_results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder / "logs"


def row(doc_id: int, text: str = "yes", match: float = 1.0) -> dict[str, Any]:
    return {"doc_id": doc_id, "filtered_resps": [text], "exact_match": match}


def test_samples_come_back_by_question(tmp_path: Path) -> None:
    found = read_samples(write_logs(tmp_path, [row(1, "no", 0.0), row(0)]), TASK)
    assert found.texts == {"a": "no", "b": "yes"}
    assert found.scores == {"a": 0.0, "b": 1.0} and found.value == 0.5


@pytest.mark.parametrize(
    ("rows", "value", "message"),
    [
        ([row(0)], 0.5, "has 1 of 2 rows; question a is missing"),
        ([row(0), row(2)], 0.5, "line 2: `doc_id` is 2"),
        ([row(0), {"doc_id": 1, "exact_match": 1.0}], 0.5, "line 2: no text in `filtered_resps`"),
        ([row(0), row(1) | {"exact_match": "N/A"}], 0.5, "`exact_match` is 'N/A', not a number"),
        ([row(0), row(1)], "N/A", "no `exact_match,none` of densekit_mme"),
    ],
)
def test_logs_that_lack_something_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], value: Any, message: str
) -> None:
    with pytest.raises(DataError, match=f"{message}.*run `densekit cross-check` again"):
        read_samples(write_logs(tmp_path, rows, value), TASK)


def test_no_log_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lmms-eval wrote no log"):
        read_samples(tmp_path, TASK)


def compared(texts: dict[str, str], theirs: dict[str, float], name: str = "held_out") -> Any:
    return compare_answers(
        get_protocol(name),
        batch_size=1,
        texts={"a": "red", "b": "blue"},
        scores={"a": score("a", 1.0), "b": score("b", 0.0)},
        value=50.0,
        imported=Imported(texts=texts, scores=theirs, value=0.5),
    )


def test_both_opinions_side_by_side() -> None:
    same = compared({"a": "red", "b": "blue"}, {"a": 1.0, "b": 0.0})
    assert same.agrees and same.as_json()["agrees"]
    assert [*same.report()][:2] == [
        "held_out: 2 of 2 answers are the same",
        "  densekit 50.00, lmms-eval 50.00 (exact match)",
    ]
    other = compared({"a": "red", "b": "green"}, {"a": 1.0, "b": 0.0})
    assert not other.agrees
    assert "  question b: densekit 'blue', lmms-eval 'green'" in other.report()


def test_equal_answers_that_score_differently() -> None:
    found = compared({"a": "red", "b": "blue"}, {"a": 1.0, "b": 1.0})
    assert not found.agrees and found.scored_differently == ("b",)
    assert any("1 equal answer scored differently" in line for line in found.report())
    other = compared({"a": "red", "b": "blue"}, {"a": 1.0, "b": 1.0}, name="pope")
    assert other.agrees, "the figures do not mean the same, which is said"
    assert "the figure is f1" in other.protocol_differences[0]


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_check, "PACKAGES", tmp_path)
    with pytest.raises(UsageError, match="`make lmms-eval` puts it there"):
        cross_check.cross_check(tmp_path)
    (tmp_path / "lmms_eval").mkdir()
    (tmp_path / "lmms_eval" / "__init__.py").touch()
    with pytest.raises(UsageError, match="has no evaluation that ended: `densekit evaluate"):
        cross_check.cross_check(tmp_path)
