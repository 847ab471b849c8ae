"""Does the code use something of torch that the oldest supported release does not have? Run without
torch.

    python tools/torch_api.py                        list such uses in densekit/; exit 1 if there is
    one python tools/torch_api.py inventory > NEW.json   every public name of the torch installed
    here, with parameters python tools/torch_api.py newer OLD.json NEW.json > tools/torch_newer.json

The images hold torch 2.7 (V100), 2.8 (A100) and 2.13 (CPU). tools/torch_newer.json lists what 2.13
has and 2.7 lacks. Where a file imports torch, a method of an object whose type is not known is
looked up among those of Tensor, Module and Optimizer, unless lists, strings and the like have one
of that name.
"""

import ast
import importlib
import inspect
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NEWER = ROOT / "tools" / "torch_newer.json"
MODULES = (
    "torch",
    "torch.amp",
    "torch.autograd",
    "torch.backends",
    "torch.cuda",
    "torch.distributed",
    "torch.linalg",
    "torch.nn",
    "torch.nn.functional",
    "torch.nn.init",
    "torch.nn.parallel",
    "torch.nn.utils",
    "torch.optim",
    "torch.optim.lr_scheduler",
    "torch.optim.optimizer",
    "torch.profiler",
    "torch.random",
    "torch.serialization",
    "torch.utils",
    "torch.utils.checkpoint",
    "torch.utils.data",
    "torch.backends.cuda",
    "torch.backends.cudnn",
    "torch.distributed.fsdp",
    "torch.distributed.run",
    "torch.distributed.checkpoint",
    "torch.nn.attention",
)
METHODS_OF = ("torch.Tensor", "torch.nn.Module", "torch.optim.Optimizer")
OLD_TENSORS = re.compile(r"\w+Tensor")  # FloatTensor and the like repeat what Tensor has
BUILTIN_METHODS = {name for kind in (list, tuple, dict, set, str, bytes) for name in dir(kind)}


def inventory() -> dict[str, Any]:
    """{"torch": version, "names": {dotted name: its parameters, or null where they cannot be
    known}}.
    """
    import torch

    names: dict[str, list[str] | None] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for key in sorted(dir(module)):
            value = getattr(module, key, None)
            if (
                key.startswith("_")
                or isinstance(value, types.ModuleType)
                or OLD_TENSORS.fullmatch(key)
            ):
                continue
            names[f"{name}.{key}"] = _parameters(value)
            if inspect.isclass(value):
                for member in dir(value):
                    if not member.startswith("_"):
                        names[f"{name}.{key}.{member}"] = _parameters(getattr(value, member, None))
    return {"torch": torch.__version__, "names": names}


def _parameters(value: object) -> list[str] | None:
    try:
        parameters = inspect.signature(value).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def newer(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What `new` has and `old` lacks: names, and parameters of names that both have."""
    before, after = old["names"], new["names"]
    parameters = {}
    for name in sorted(before.keys() & after.keys()):
        if before[name] is not None and after[name] is not None:
            added = sorted(set(after[name]) - set(before[name]))
            if added:
                parameters[name] = added
    added_names = after.keys() - before.keys()
    # A new class is listed, not each of its members.
    top = sorted(name for name in added_names if name.rpartition(".")[0] not in added_names)
    return {"old": old["torch"], "new": new["torch"], "names": top, "parameters": parameters}


def uses(source: str) -> Iterator[tuple[int, str, list[str]]]:
    """(line, dotted name, keywords it is called with) of everything of torch; `.name` where the
    object is unknown.
    """
    tree = ast.parse(source)
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "torch":
                    known[alias.asname or "torch"] = alias.name if alias.asname else "torch"
                    yield node.lineno, alias.name, []
        elif (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] == "torch"
            and not node.level
        ):
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield node.lineno, f"{node.module}.{alias.name}", []
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute | ast.Name):
            continue
        name = _dotted(node, known)
        if name is not None:
            keywords = (
                [word.arg for word in called[id(node)].keywords if word.arg]
                if id(node) in called
                else []
            )
            yield node.lineno, name, keywords


def _dotted(node: ast.expr, known: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value, known)
        return f"{base}.{node.attr}" if base and not base.startswith(".") else f".{node.attr}"
    return None


def newer_uses(source: str, listed: dict[str, Any]) -> list[str]:
    """One sentence for every use that the old release lacks."""
    names, parameters = set(listed["names"]), listed["parameters"]
    every = list(uses(source))
    if not any(name.startswith("torch") for _, name, _ in every):
        return []
    found = []
    for line, name, keywords in every:
        if name[1:] in BUILTIN_METHODS:
            continue
        candidates = [f"{owner}{name}" for owner in METHODS_OF] if name.startswith(".") else [name]
        for candidate in candidates:
            if candidate in names:
                found.append(f"{line}: {candidate}")
            added = sorted(set(keywords) & set(parameters.get(candidate, ())))
            if added:
                found.append(f"{line}: {candidate}({', '.join(f'{word}=' for word in added)})")
    return sorted(set(found))


def main() -> None:
    """See the module's first lines."""
    match sys.argv[1:]:
        case []:
            listed = json.loads(NEWER.read_text(encoding="utf-8"))
            found = [
                f"{path.relative_to(ROOT)}:{use}"
                for path in sorted((ROOT / "densekit").rglob("*.py"))
                for use in newer_uses(path.read_text(encoding="utf-8"), listed)
            ]
            if found:
                sys.exit(
                    "\n".join(
                        [*found, f"torch {listed['old']} (the v100 image) does not have these"]
                    )
                )
        case ["inventory"]:
            print(json.dumps(inventory()))
        case ["newer", old, new]:
            read = [json.loads(Path(name).read_text(encoding="utf-8")) for name in (old, new)]
            print(json.dumps(newer(*read), indent=1))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
