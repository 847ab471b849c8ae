"""Nothing of torch is used that the oldest torch of an image lacks."""

import json
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tools.torch_api import NEWER, newer, newer_uses, uses

LISTED = json.loads(NEWER.read_text(encoding="utf-8"))


@pytest.mark.ranks
def test_densekit_uses_nothing_newer() -> None:
    done = subprocess.run(
        [sys.executable, "tools/torch_api.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_list_is_of_the_torch_releases_of_the_images() -> None:
    assert LISTED["old"].startswith("2.7.0")
    assert LISTED["new"].startswith("2.13.0")
    assert len(LISTED["names"]) > 100


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch\ntorch.cuda.GreenContext()", "2: torch.cuda.GreenContext"),
        ("from torch import distributed as d\nd.record_comm", "2: torch.distributed.record_comm"),
        ("from torch.cuda import GreenContext", "1: torch.cuda.GreenContext"),
        (
            "from torch import Tensor\ndef f(x: Tensor):\n    return x.hash_tensor()",
            "3: torch.Tensor.hash_tensor",
        ),
    ],
)
def test_newer_names_are_found(source: str, found: str) -> None:
    assert newer_uses(source, LISTED) == [found]


def test_newer_parameters_are_found() -> None:
    name, added = next(
        (name, added) for name, added in LISTED["parameters"].items() if name.count(".") == 1
    )
    function = name.split(".")[1]
    assert newer_uses(f"import torch\ntorch.{function}({added[0]}=1)", LISTED) == [
        f"2: {name}({added[0]}=)"
    ]
    assert newer_uses(f"import torch\ntorch.{function}()", LISTED) == []


@pytest.mark.parametrize(
    "source",
    [
        "import torch\n[1].index(1)\ntorch.nn.functional.cross_entropy(x, y)",
        "def f(x):\n    return x.hash_tensor()",  # a file without torch
    ],
)
def test_what_is_not_newer(source: str) -> None:
    assert newer_uses(source, LISTED) == []


def test_uses_follow_aliases_and_keywords() -> None:
    source = "import torch.nn.functional as F\nF.softmax(x, dim=1)"
    assert (2, "torch.nn.functional.softmax", ["dim"]) in list(uses(source))


def test_inventories_are_compared() -> None:
    old = {"torch": "1", "names": {"torch.f": ["a"], "torch.g": None}}
    new = {
        "torch": "2",
        "names": {"torch.f": ["a", "b"], "torch.g": ["c"], "torch.H": None, "torch.H.run": []},
    }
    assert newer(old, new) == {
        "old": "1",
        "new": "2",
        "names": ["torch.H"],
        "parameters": {"torch.f": ["b"]},
    }
