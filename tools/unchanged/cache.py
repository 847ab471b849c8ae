"""Results of a commit, kept by its hash and what else decides them: machine, packages, the list."""

import ast
import hashlib
import json
import os
import platform
import re
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE.parents[1] / "requirements"
PINNED = ("driver.txt", "torch.txt", "train.txt")
COLLECTING = ("checkouts.py", "inside.py", "items.py", "rundirs.py", "witness/sitecustomize.py")
"""The files that decide what a result holds; the comparison may change."""


def fingerprint() -> dict[str, str]:
    """What has to be equal for a kept result to count."""
    sources = "\n".join(code_of((HERE / name).read_text(encoding="utf-8")) for name in COLLECTING)
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": _sha256(_packages()),
        "processor": _processor(),
        "processors": str(os.cpu_count()),
        "memory_gib": str(round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)),
        "list": _sha256(sources),
    }


class Cache:
    """One file per commit. What was computed elsewhere or otherwise is overwritten."""

    def __init__(self, folder: Path, commit: str, *, fresh: bool = False) -> None:
        self.path = folder / f"{commit}.json"
        self.fingerprint = fingerprint()
        self.items: dict[str, dict[str, Any]] = {}
        self.note: str | None = None
        if self.path.is_file() and not fresh:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["fingerprint"] == self.fingerprint:
                self.items = kept["items"]
            else:
                changed = dict(self.fingerprint.items() - kept["fingerprint"].items())
                self.note = f"kept results of this commit do not count: other {', '.join(changed)}"

    def put(self, name: str, result: dict[str, Any]) -> None:
        """Keep one item's result at once: an interrupted comparison goes on where it was."""
        self.items[name] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        kept = {"fingerprint": self.fingerprint, "items": self.items}
        temporary.write_text(json.dumps(kept), encoding="utf-8")
        temporary.replace(self.path)


def code_of(source: str) -> str:
    """A program without comments, docstrings and layout, whose edits change no result."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            if isinstance(lines := getattr(node, name, None), list):
                setattr(node, name, [line for line in lines if not _is_text(line)])
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _packages() -> str:
    """What is installed of the packages that densekit uses; a test runner changes no result."""
    pins = "".join((REQUIREMENTS / name).read_text(encoding="utf-8") for name in PINNED)
    used = {name.lower() for name in re.findall(r"^([\w.-]+)==", pins, flags=re.MULTILINE)}
    found = {each.metadata["Name"].lower(): each.version for each in distributions()}
    return json.dumps(sorted((name, found.get(name)) for name in used))


def _processor() -> str:
    """Model and instruction sets: both choose the kernels that run."""
    wanted = ("model name", "flags", "CPU implementer", "CPU part", "Features")
    found: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = (part.strip() for part in line.partition(":"))
            if name in wanted:
                found.setdefault(name, value)
    except OSError:
        return platform.processor()
    name = found.get("model name", platform.machine())
    return f"{name} {_sha256(json.dumps(found, sort_keys=True))[:10]}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
