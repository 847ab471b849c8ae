"""Texts around image tags, encoded one by one."""

import pytest

from densekit.spec.types import IMAGE_TOKEN_ID, Semantics
from densekit.text.chunks import encode_chunks, tag_positions
from tests.support.pipelines import byte_tokenizer

TEXT = "ab<image>c<image>"


@pytest.mark.parametrize("semantics", ["faithful", "fixed"])
def test_every_id_says_which_characters_it_is_of(semantics: Semantics) -> None:
    encoding = encode_chunks(byte_tokenizer(), TEXT, tag_positions(TEXT), semantics=semantics)
    assert encoding.offsets == [(0, 1), (1, 2), (2, 9), (9, 10), (10, 17)]
    assert [place for place, id_ in enumerate(encoding.ids) if id_ == IMAGE_TOKEN_ID] == [2, 4]
