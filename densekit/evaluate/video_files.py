"""Questions about videos as Video-ChatGPT publishes them, and the files of the videos.

The forms of the question files are from memory; no reader has met a real one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from densekit.errors import DataError
from densekit.files.json_files import read_json

REMEDY = "give Video-ChatGPT's file, or the questions as JSON lines (docs/evaluation.md)"
FOLDERS = dict.fromkeys(
    ("video_ci", "video_do", "video_cu", "video_tu", "video_co"), "video_chatgpt"
)
"""Benchmarks that share a folder below `benchmarks`."""
FILES = {
    **dict.fromkeys(("msvd", "msrvtt", "activitynet"), "test_q.json"),
    **dict.fromkeys(("video_ci", "video_do", "video_cu"), "generic_qa.json"),
    "video_tu": "temporal_qa.json",
    "video_co": "consistency_qa.json",
}
VIDEOS = "videos"
"""The folder of the videos, beside the questions."""
EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv")
"""What the official runner looks for behind a video's name."""
PREFIX = "v_"
"""Of ActivityNet's files."""


def video_names(video: str) -> list[str]:
    """Files that would be a video of this name, the first one first."""
    return [f"{prefix}{video}{end}" for end in ("", *EXTENSIONS) for prefix in ("", PREFIX)]


def judged_questions(path: Path) -> Iterator[dict[str, Any]]:
    """test_q.json, with the answers in test_a.json beside it, where that is there."""
    answers_file = path.with_name("test_a.json")
    answers = {}
    if answers_file.is_file():
        answers = {str(row["question_id"]): row["answer"] for row in _rows(answers_file)}
    for row in _rows(path):
        name = str(row["question_id"])
        gold = (str(answers[name]),) if name in answers else ()
        yield {"id": name, "text": row["question"], "image": row["video_name"], "gold": gold}


def described_questions(path: Path) -> Iterator[dict[str, Any]]:
    """generic_qa.json and temporal_qa.json: a question a row."""
    for number, row in enumerate(_rows(path)):
        yield {"id": str(number), "text": row["Q"], "image": row["video_name"], "gold": (row["A"],)}


def paired_questions(path: Path) -> Iterator[dict[str, Any]]:
    """consistency_qa.json: two questions a row, which are asked one by one."""
    for number, row in enumerate(_rows(path)):
        for key in ("Q1", "Q2"):
            yield {
                "id": f"{number}/{key}",
                "text": row[key],
                "image": row["video_name"],
                "gold": (row["A"],),
                "category": key,
            }


def _rows(path: Path) -> list[dict[str, Any]]:
    value = read_json(path, remedy=REMEDY)
    if not isinstance(value, list):
        raise DataError(f"{path} is not a list of questions: {REMEDY}")
    return value
