"""An evaluation's questions as tasks of lmms-eval: a folder of YAML and parquet, nothing else.

A row has the question's id, the text asked, the image as it is in its file, and the right answers.
lmms-eval reads the rows, hands text and picture to the model, and scores with its own `exact_match`
(case and punctuation ignored); no function of densekit is called on its side of the score.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from densekit.data.pixels import MAX_BYTES
from densekit.errors import DataError
from densekit.files.json_files import read_file
from densekit.runs.evaluations import AskedBenchmark, PlannedQuestion
from densekit.spec.roots import Roots

PREFIX = "densekit_"
"""Of the names of tasks: lmms-eval has tasks of its own."""
FEATURES = {
    "question_id": {"dtype": "string", "_type": "Value"},
    "asked": {"dtype": "string", "_type": "Value"},
    "image": {"_type": "Image"},
    "gold": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
}
"""How the `datasets` library is told what the columns are."""
ROWS_AT_ONCE = 256
"""Of a file, in memory: rows hold images."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One benchmark as a task."""

    name: str
    benchmark: str
    questions: tuple[str, ...]
    """Ids, in the order of the rows."""


def write_task(
    folder: Path, asked: AskedBenchmark, plan: Sequence[PlannedQuestion], roots: Roots
) -> Task:
    """Write one task below `folder`.

    Raises DataError for an image that is missing or not the one that was planned, for videos, and
    for answers that are sampled: two programs do not draw the same ones.
    """
    protocol = asked.protocol
    if protocol.decoding.do_sample or protocol.decoding.num_beams > 1:
        raise DataError(
            f"{protocol.title} samples its answers: two programs do not draw the same ones, so "
            "there is nothing to compare; omit it from --benchmarks"
        )
    if protocol.video is not None:
        raise DataError(
            f"{protocol.title} asks about videos, and a task holds images alone: omit it from "
            "--benchmarks"
        )
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / f"{protocol.name}.parquet"
    _write_rows(rows, plan, roots)
    name = f"{PREFIX}{protocol.name}"
    settings = {
        "task": name,
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": str(rows.resolve())}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "asked",
        "doc_to_visual": "image",
        "doc_to_target": "gold",
        "generation_kwargs": {
            "max_new_tokens": protocol.decoding.max_new_tokens,
            "do_sample": False,
            "temperature": 0,
            "num_beams": 1,
        },
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "ignore_case": True,
                "ignore_punctuation": True,
            }
        ],
    }
    (folder / f"{protocol.name}.yaml").write_text(
        yaml.safe_dump(settings, sort_keys=False), encoding="utf-8"
    )
    return Task(
        name=name,
        benchmark=protocol.name,
        questions=tuple(question.question_id for question in plan),
    )


def _write_rows(path: Path, plan: Sequence[PlannedQuestion], roots: Roots) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [
            ("question_id", pa.string()),
            ("asked", pa.string()),
            ("image", picture),
            ("gold", pa.list_(pa.string())),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    with pq.ParquetWriter(path, schema) as writer:
        for rows in _in_pieces(plan):
            table = [
                {
                    "question_id": planned.question_id,
                    "asked": planned.asked,
                    "image": _image(planned, roots),
                    "gold": [str(gold) for gold in planned.question["gold"]],
                }
                for planned in rows
            ]
            writer.write_table(pa.Table.from_pylist(table, schema=schema))


def _in_pieces(plan: Sequence[PlannedQuestion]) -> Iterator[Sequence[PlannedQuestion]]:
    for start in range(0, len(plan), ROWS_AT_ONCE):
        yield plan[start : start + ROWS_AT_ONCE]


def _image(planned: PlannedQuestion, roots: Roots) -> dict[str, object] | None:
    if planned.image is None:
        return None
    path = roots.resolve(planned.image)
    data = read_file(path, limit=MAX_BYTES, remedy="put it back")
    if hashlib.sha256(data).hexdigest() != planned.image_sha256:
        raise DataError(
            f"image {path} is not the one that the evaluation was made for: it changed since; put "
            "the original back"
        )
    return {"bytes": data, "path": path.name}
