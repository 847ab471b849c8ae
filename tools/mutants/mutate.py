"""The small changes that mutation testing makes in a file, one at a time.

Texts are left alone, and so are messages (`raise`), annotations and decorators.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISON: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,  # codespell:ignore notin
    ast.NotIn: ast.In,  # codespell:ignore notin
}
NEGATED_BY_COMPARISON = (
    ast.Eq,
    ast.NotEq,
    ast.Is,
    ast.IsNot,
    ast.In,
    ast.NotIn,  # codespell:ignore notin
)  # codespell:ignore notin
"""Operators whose other one is the negated condition, which is not made a second time."""
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One changed file. `text` is the changed line, and `nth` counts equal changes of equal lines
    from 0: together they name the mutant whatever stands above it.
    """

    line: int
    text: str
    change: str
    nth: int
    tree: ast.Module


@dataclass(frozen=True, kw_only=True)
class _Change:
    """`replacement` stands in the place of a node; only `old` in it became `new`."""

    old: ast.expr | ast.stmt
    new: ast.AST
    replacement: ast.AST


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a file, in the order of the walk."""
    lines = source.splitlines()
    seen: Counter[tuple[str, str]] = Counter()
    for place, node in enumerate(_nodes(ast.parse(source))):
        for number, change in enumerate(_changes(node)):
            mutated = ast.parse(source)
            target = _nodes(mutated)[place]
            replacement = list(_changes(target))[number].replacement
            _Replace(target, ast.copy_location(replacement, target)).visit(mutated)
            text = lines[change.old.lineno - 1].strip()
            words = f"{ast.unparse(change.old)} -> {ast.unparse(change.new)}"
            yield Mutant(
                line=change.old.lineno,
                text=text,
                change=words,
                nth=seen[text, words],
                tree=ast.fix_missing_locations(mutated),
            )
            seen[text, words] += 1


def _nodes(tree: ast.AST) -> list[ast.AST]:
    """The nodes that may be changed, outer ones first."""
    found = [tree]
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.Raise):
                found.extend(_nodes(child))
    return found


def _changes(node: ast.AST) -> Iterator[_Change]:
    """Every change of one operator, constant, call or condition of `node` itself."""
    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in ARITHMETIC:
            yield _whole(node, _with(node, op=ARITHMETIC[type(op)]()))
        case ast.BoolOp(op=op):
            yield _whole(node, _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And()))
        case ast.Compare(ops=ops):
            for number, comparison in enumerate(ops):
                other = COMPARISON[type(comparison)]()
                yield _whole(node, _with(node, ops=[*ops[:number], other, *ops[number + 1 :]]))
        case ast.UnaryOp(operand=operand):
            yield _whole(node, copy(operand))
        case ast.Constant(value=bool(flag)):
            yield _whole(node, _with(node, value=not flag))
        case ast.Constant(value=int(value) | float(value)):
            yield _whole(node, _with(node, value=value + 1))
            yield _whole(node, _with(node, value=value - 1))
        case ast.Call(func=ast.Name(id=name) as function) if name in CALLS:
            other_function = _with(function, id=CALLS[name])
            replacement = _with(node, func=other_function)
            yield _Change(old=function, new=other_function, replacement=replacement)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if _negatable(test):
            negated = _negated(test)
            yield _Change(old=test, new=negated, replacement=_with(node, test=negated))
        case ast.comprehension(ifs=tests):
            for number, test in enumerate(tests):
                if _negatable(test):
                    negated = _negated(test)
                    changed = _with(node, ifs=[*tests[:number], negated, *tests[number + 1 :]])
                    yield _Change(old=test, new=negated, replacement=changed)


def _whole(node: ast.expr | ast.stmt, new: ast.AST) -> _Change:
    return _Change(old=node, new=new, replacement=new)


def _negatable(test: ast.expr) -> bool:
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return not isinstance(test.ops[0], NEGATED_BY_COMPARISON)
    return not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not))


def _negated(test: ast.expr) -> ast.expr:
    return ast.copy_location(ast.UnaryOp(op=ast.Not(), operand=test), test)


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, replacement: ast.AST) -> None:
        self.target, self.replacement = target, replacement

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self.target:
            return self.replacement
        return super().visit(node)  # type: ignore[no-any-return]
