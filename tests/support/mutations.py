"""Damage for fuzzing: values that nobody expects, put anywhere into a document, and bytes that are
lost or changed.
"""

import copy
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SCALE = int(os.environ.get("DENSEKIT_FUZZ", "1"))
"""How many times the cases of `make test` are tried; `make fuzz` sets it."""
TIMEOUT = 120 * SCALE
"""Seconds that one test may take."""
SECONDS = 10.0
"""Of the processor, for one case."""

ODD = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        -1,
        1,
        3.5,
        1e300,
        10**30,
        10**400,
        float("nan"),
        float("inf"),
        "",
        " ",
        "\0",
        "a\0b",
        "\ud800",
        "é\u2028😀",
        "../x",
        "/dev/zero",
        "/",
        "~",
        "~nobody/x",
        "models:",
        "data:../../x",
        "cache:tiny/x",
        "1e-3",
        "nan",
        "x" * 5000,
        "{% %}",
        "\n",
        "[" * 200,
        "<image>",
        "__class__",
        [],
        {},
        [[]],
        [None],
        {"": None},
        {"a": {"b": {"c": []}}},
        [1] * 300,
    ]
)
VALUES = st.recursive(
    st.one_of(ODD, st.integers(), st.floats(), st.text(max_size=20), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=6,
)


def cases(count: int) -> settings:
    """Settings of a fuzz test that tries `count` cases in `make test`, always the same ones."""
    return settings(
        max_examples=count * SCALE,
        derandomize=SCALE == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def quick() -> Iterator[None]:
    """Fail where the block takes too long; the processor's time, whatever else the machine does."""
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> Any:
    """A copy of a JSON value, one to three of its parts replaced, removed, renamed or doubled."""
    value = {"": copy.deepcopy(document)}
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(value))
        parent, key = draw(st.sampled_from(places))
        act = draw(st.sampled_from(["replace", "replace", "remove", "rename", "double"]))
        if act == "replace" or parent is value:
            parent[key] = copy.deepcopy(draw(VALUES))
        elif act == "remove":
            del parent[key]
        elif isinstance(parent, dict):
            name = draw(st.one_of(st.sampled_from(list(parent)), st.text(max_size=8)))
            parent[name] = parent.pop(key) if act == "rename" else copy.deepcopy(parent[key])
        else:
            parent.append(copy.deepcopy(parent[key]))
    return value[""]


def _places(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(pairs):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes that were cut off, changed, inserted or repeated somewhere."""
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, len(data)))
    act = draw(st.sampled_from(["cut", "change", "insert", "repeat"]))
    if act == "cut":
        return data[:start]
    if act == "repeat":
        return data[:end] + data[start:end] * draw(st.integers(1, 20)) + data[end:]
    inserted = draw(
        st.one_of(
            st.binary(max_size=12),
            st.sampled_from([b"[" * 3000, b"{" * 500, b"&a [*a]", b"\xef\xbb\xbf", b"9" * 6000]),
        )
    )
    return data[:start] + inserted + data[end if act == "change" else start :]


def as_json(value: Any) -> bytes:
    """What a careless writer makes of a value: NaN and halves of surrogate pairs included."""
    return json.dumps(value).encode()
