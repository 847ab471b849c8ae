"""Recorded ids and labels in place of a licensed tokenizer that a set of recordings leaves out."""

import json
from pathlib import Path

import numpy as np

from densekit.errors import DataError
from densekit.files.json_files import read_json
from densekit.spec.types import Semantics
from densekit.text.encode import EncodedSample

TOKENS_FILE = "tokens.json"


def has_tokenizer(root: Path, folder: Path) -> bool:
    """Whether a model folder holds its tokenizer; a set that leaves it out holds tokens.json.

    Raises DataError when neither is there.
    """
    if (folder / "tokenizer.model").is_file() or (folder / "tokenizer.json").is_file():
        return True
    if not (root / TOKENS_FILE).is_file():
        raise DataError(
            f"{folder} holds neither tokenizer.model nor tokenizer.json, and {root} holds no"
            f" {TOKENS_FILE} with recorded ids in their place; copy the tokenizer there"
        )
    return False


class RecordedEncoder:
    """Ids and labels from tokens.json.

    The file maps a template to a list of {"conversations", "has_image", "input_ids", "labels"}.
    """

    semantics: Semantics = "faithful"

    def __init__(self, root: Path, *, template: str, max_length: int) -> None:
        self.max_length = max_length
        recorded = read_json(root / TOKENS_FILE)
        self.pad_id: int = recorded["pad_id"]
        self._samples = {_key(entry["conversations"]): entry for entry in recorded[template]}

    def encode(self, conversations: list[dict[str, str]], *, has_image: bool) -> EncodedSample:
        """The recorded sample, text-only ones cut to max_length; DataError when the conversation is
        not among them.
        """
        entry = self._samples.get(_key(conversations))
        if entry is None or entry["has_image"] != has_image:
            raise DataError(
                f"{TOKENS_FILE} holds no ids for this conversation; make it again from all of data/"
            )
        end = None if has_image else self.max_length
        ids, labels = (
            np.array(entry[name], dtype=np.int64)[:end] for name in ("input_ids", "labels")
        )
        return EncodedSample(ids, labels, ())


def _key(conversations: list[dict[str, str]]) -> str:
    return json.dumps(conversations, sort_keys=True)
