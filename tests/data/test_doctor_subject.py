"""What the doctor examines: a file, a recipe's data set, one that is not there; its page."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from densekit.data.doctor.examine import Request, examine
from densekit.data.doctor.kinds import KINDS
from densekit.data.doctor.subject import Subject, find_subject
from densekit.spec.roots import Roots
from tests.support.damaged_data import World


def test_subject_of_a_file_needs_no_recipe(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write()
    subject = Subject(name="x", annotations=world.annotations, images=world.folder)
    assert list(examine(subject, Request(depth="full"), world.cache).findings) == []
    assert replace(subject, template="v1").template == "v1"
    assert json.loads(world.annotations.read_text())[0]["id"] == "0"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("LLaVA-Instruct-150K", r"there is no such file; `densekit fetch \w+_stage2` gets it"),
        ("tiny_stage2", "there is no such file; `densekit run tiny_stage2` makes it first"),
    ],
)
def test_a_missing_annotation_file_is_got_by_a_command(
    tmp_path: Path, name: str, advice: str
) -> None:
    subject = find_subject(name, Roots(data=tmp_path, models=tmp_path, cache=tmp_path))
    (group,) = examine(subject, Request(), tmp_path).findings.groups()
    assert group.kind.name == "annotations" and re.fullmatch(advice, group.places[0][1])


def test_the_page_lists_every_kind() -> None:
    page = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    rows = [
        f"| `{kind.name}` | {kind.severity} | {kind.what} | {kind.remedy} |"
        for kind in KINDS.values()
    ]
    assert page.partition("## Kinds of findings")[2].strip().splitlines()[2:] == rows
