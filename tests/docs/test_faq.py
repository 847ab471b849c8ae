"""The FAQ answers messages that densekit prints: each of them is looked up in the code."""

import re

import pytest

from tests.support.paths import ROOT
from tests.test_words import literals

FAQ = ROOT / "docs" / "faq.md"
PIECE = re.compile(r"\.\.\.|`?<[^>]+>`?|\bN\b")
"""What stands for a value in a message of the FAQ."""


def messages() -> list[str]:
    """The headings that quote one."""
    return re.findall(r"^### (.+)$", FAQ.read_text(encoding="utf-8"), re.MULTILINE)


def spoken() -> str:
    """Every text of the code, its values left out, one line each."""
    found = {
        " ".join(text.split())
        for path in (ROOT / "densekit").rglob("*.py")
        for _, text in literals(path)
    }
    return "\n".join(sorted(found))


def unknown(message: str, texts: str) -> list[str]:
    """The pieces of a message that are in no text of the code."""
    pieces = (piece.strip(" ;:,()`").replace("`", "") for piece in PIECE.split(message))
    plain = texts.replace("`", "")
    return [piece for piece in pieces if len(piece) > 3 and piece not in plain]


@pytest.fixture(scope="module")
def texts() -> str:
    """Read once."""
    return spoken()


def test_every_message_is_one_of_ours(texts: str) -> None:
    assert len(messages()) >= 10
    wrong = {message: pieces for message in messages() if (pieces := unknown(message, texts))}
    assert not wrong


def test_a_message_that_nobody_prints_is_found(texts: str) -> None:
    assert unknown("no container engine answers (...): start the attic", texts) == [
        "start the attic"
    ]
