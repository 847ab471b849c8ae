"""Exact comparison of two JSON values, and the differences that are declared beforehand."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

NEEDS: dict[str, set[str]] = {
    "renamed_key": {"old", "new"},
    "dropped_key": {"old"},
    "added_key": {"new"},
    "changed_message": {"old", "new"},
    "merged_texts": {"old", "new"},
    "wording": set(),
    "commands": set(),
    "rehashed": set(),
}
"""The kinds of declarations, and what each has to say besides `where`, `kind` and `reason`."""
COMMENT = re.compile(r"(?:^\s*|  )# .*$")
CONTINUED = re.compile(r"(?: \\)?\n\s*(?=&& )| \\\n\s*")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")

HASH = re.compile("[0-9a-f]{64}")


class _Missing:
    def __repr__(self) -> str:
        return "(nothing)"


MISSING = _Missing()


@dataclass(frozen=True)
class Difference:
    """Where the sides differ, and what each has there."""

    path: str
    base: Any
    tree: Any

    def lines(self) -> list[str]:
        """For people, long values cut."""
        return [self.path, f"  base: {_short(self.base)}", f"  tree: {_short(self.tree)}"]

    def as_json(self) -> dict[str, Any]:
        """A side without a value lacks the key."""
        sides = {"base": self.base, "tree": self.tree}
        return {"path": self.path} | {name: it for name, it in sides.items() if it is not MISSING}


@dataclass
class Declaration:
    """A difference that must exist.

    `where` is a pattern of item name and JSON path, joined by `/`; its `*` matches `/` too.
    """

    where: str
    kind: str
    reason: str
    old: Any = None
    new: Any = None
    schema: int | None = None
    """Of the JSON that differs, from this difference on."""
    acted: int = 0

    def __post_init__(self) -> None:
        if self.kind not in NEEDS:
            raise ValueError(f"kind {self.kind!r}: one of {', '.join(NEEDS)} is needed")
        if lacking := sorted(name for name in NEEDS[self.kind] if getattr(self, name) is None):
            raise ValueError(f"{self.kind} at {self.where}: {', '.join(lacking)} is missing")

    def line(self) -> str:
        """For people."""
        change = " -> ".join(str(value) for value in (self.old, self.new) if value is not None)
        schema = f" (schema {self.schema})" if self.schema is not None else ""
        return f"{self.kind} {self.where}{': ' if change else ''}{change}{schema}: {self.reason}"


def read_declarations(path: Path) -> list[Declaration]:
    """The declared differences. Raises ValueError for what is not understood."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
        return [Declaration(**entry) for entry in entries]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def compare(path: str, base: Any, tree: Any, declared: list[Declaration]) -> Iterator[Difference]:
    """Every difference that is not declared, in the base's order; declarations count their uses."""
    if isinstance(base, list):
        base = _merged(declared, path, base)
    if type(base) is type(tree) and json.dumps(base) == json.dumps(tree):
        return
    if (wording := _find(declared, "wording", path)) and _only_words_differ(base, tree):
        wording.acted += 1
    elif (commands := _find(declared, "commands", path)) and _same_commands(
        base, tree, _matching(declared, "changed_message", path)
    ):
        commands.acted += 1
    elif isinstance(base, dict) and isinstance(tree, dict):
        yield from _compare_objects(path, base, tree, declared)
    elif isinstance(base, list) and isinstance(tree, list):
        for index, (old, new) in enumerate(zip_longest(base, tree, fillvalue=MISSING)):
            below = f"{path}/{index}"
            if old is MISSING or new is MISSING:
                yield Difference(below, old, new)
            else:
                yield from compare(below, old, new, declared)
    elif (rehashed := _find(declared, "rehashed", path)) and _are_hashes(base, tree):
        rehashed.acted += 1
    elif message := _explanation(declared, path, base, tree):
        message.acted += 1
    else:
        yield Difference(path, base, tree)


def _merged(declared: list[Declaration], path: str, base: list[Any]) -> list[Any]:
    """The base's list with one text in the place of the first of the declared ones."""
    for one in _matching(declared, "merged_texts", path):
        if all(text in base for text in one.old) and len(one.old) > 1:
            base = [one.new if text == one.old[0] else text for text in base]
            base = [text for text in base if text not in one.old]
            one.acted += 1
    return base


def _compare_objects(
    path: str, base: dict[str, Any], tree: dict[str, Any], declared: list[Declaration]
) -> Iterator[Difference]:
    """A declared key counts only where one side alone has it."""
    gone, come = base.keys() - tree.keys(), tree.keys() - base.keys()
    renamed: dict[str, str] = {}
    for one in _matching(declared, "renamed_key", path):
        if one.old in gone and one.new in come - set(renamed.values()):
            renamed[one.old] = one.new
            one.acted += 1
    for key, value in base.items():
        if key in tree or key in renamed:
            now = renamed.get(key, key)
            yield from compare(f"{path}/{now}", value, tree[now], declared)
        elif dropped := _find(declared, "dropped_key", path, old=key):
            dropped.acted += 1
        else:
            yield Difference(f"{path}/{key}", value, MISSING)
    for key, value in tree.items():
        if key in base or key in renamed.values():
            continue
        if added := _find(declared, "added_key", path, new=key):
            added.acted += 1
        else:
            yield Difference(f"{path}/{key}", MISSING, value)


def _matching(declared: list[Declaration], kind: str, path: str) -> Iterator[Declaration]:
    return (one for one in declared if one.kind == kind and fnmatchcase(path, one.where))


def _find(declared: list[Declaration], kind: str, path: str, **values: str) -> Declaration | None:
    for one in _matching(declared, kind, path):
        if all(getattr(one, name) == value for name, value in values.items()):
            return one
    return None


def _explanation(
    declared: list[Declaration],
    path: str,
    base: Any,
    tree: Any,
) -> Declaration | None:
    matching = _matching(declared, "changed_message", path)
    return next((one for one in matching if _explains(one, base, tree)), None)


def _explains(message: Declaration, base: Any, tree: Any) -> bool:
    """Whether the new text or value in place of the old one makes the sides equal."""
    if all(isinstance(value, str) for value in (base, tree, message.old, message.new)):
        return bool(message.old) and base.replace(message.old, message.new) == tree
    return json.dumps([message.old, message.new]) == json.dumps([base, tree])


def _same_commands(base: Any, tree: Any, messages: Iterator[Declaration]) -> bool:
    """Whether two lists of lines are the same shell commands, with declared texts replaced."""
    if not (isinstance(base, list) and isinstance(tree, list)):
        return False
    before, after = (_commands("\n".join(map(str, lines))) for lines in (base, tree))
    acted = []
    for message in messages:
        replaced = [line.replace(message.old, message.new) for line in before]
        if replaced != before:
            acted.append(message)
        before = replaced
    if before == after:
        for message in acted:
            message.acted += 1
    return before == after


def _commands(script: str) -> list[str]:
    """Its lines without comments (`#SBATCH` is none), line breaks inside a command and indents."""
    joined = CONTINUED.sub(" ", script)
    lines = [" ".join(COMMENT.sub("", line).split()) for line in joined.split("\n")]
    return [line for line in lines if line]


def _only_words_differ(base: Any, tree: Any) -> bool:
    """Whether two texts, or two lists of as many texts, hold the same numbers equally often."""
    sides = [value if isinstance(value, list) else [value] for value in (base, tree)]
    texts = all(isinstance(text, str) for side in sides for text in side)
    if not texts or len(sides[0]) != len(sides[1]):
        return False
    first, second = (Counter(NUMBER.findall("\n".join(side))) for side in sides)
    return first == second


def _are_hashes(base: Any, tree: Any) -> bool:
    """Whether both sides are a SHA-256: its rule changed, and what it covers is compared itself."""
    return all(isinstance(side, str) and HASH.fullmatch(side) for side in (base, tree))


def count_values(value: Any) -> int:
    """How many leaves a JSON value has."""
    if isinstance(value, dict | list):
        return sum(map(count_values, value.values() if isinstance(value, dict) else value))
    return 1


def _short(value: Any, limit: int = 300) -> str:
    text = repr(value) if value is MISSING else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text)} characters)"
