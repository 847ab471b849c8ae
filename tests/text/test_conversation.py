"""Image tags of single questions."""

import pytest

from densekit.errors import DataError
from densekit.text.conversation import check_tags, collapse_tags, with_tag


@pytest.mark.parametrize(
    ("question", "has_image", "asked"),
    [
        ("What is it?", True, "<image>\nWhat is it?"),
        ("What is <image>?", True, "What is <image>?"),
        ("What is it?", False, "What is it?"),
    ],
)
def test_question_has_a_tag_for_its_image(question: str, has_image: bool, asked: str) -> None:
    assert with_tag(question, has_image=has_image) == asked


@pytest.mark.parametrize(
    ("question", "has_image", "message"),
    [
        (
            "<image> or <image>?",
            True,
            "2 image tags (<image>) in the prompt and one image: write one tag, or none",
        ),
        (
            "What is <image>?",
            False,
            "1 image tag (<image>) in the prompt and no image: give an image, or remove the tag",
        ),
    ],
)
def test_question_with_other_tags_than_images(question: str, has_image: bool, message: str) -> None:
    with pytest.raises(DataError) as raised:
        with_tag(question, has_image=has_image)
    assert str(raised.value) == message


def test_no_tag_for_an_image() -> None:
    check_tags(1, has_image=True)
    check_tags(0, has_image=False)
    with pytest.raises(DataError, match=r"^0 image tags .* one image"):
        check_tags(0, has_image=True)


@pytest.mark.parametrize(
    ("value", "collapsed"),
    [
        ("no tag", "no tag"),
        ("what is it? <image>", "<image>\nwhat is it?"),
        ("<image> and <image>", "<image>\nand"),
        (" <image> ", "<image>"),
    ],
)
def test_tags_collapse(value: str, collapsed: str) -> None:
    assert collapse_tags(value) == collapsed
