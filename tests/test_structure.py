"""The shape of the house: who imports whom, what stays free of torch, how long files are, what none
names.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "densekit"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Top down. A room is a module or a folder of densekit; an import goes strictly down or stays in its
# room.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("launch", "parity"),
    ("train", "evaluate", "chat", "planner"),
    ("toy", "exchange", "audit", "ranks"),
    ("model", "runs", "data"),
    ("recipes", "containers"),
    ("text", "batching"),
    ("spec",),
    ("files",),
    ("errors",),
    ("__init__",),
    ("registration",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

TORCH_FREE = (
    "__main__",
    "cli",
    "launch",
    "evaluate",
    "planner",
    "audit",
    "runs",
    "data",
    "recipes",
    "containers",
    "text",
    "batching",
    "spec",
    "files",
    "errors",
    "__init__",
    "registration",
)
IN_THE_TRAINER = "densekit.evaluate.runner"
"""Of a room that is free of torch otherwise: what runs where models are trained."""
HEAVY = {"torch", "transformers", "accelerate", "peft", "deepspeed"}

MAX_LINES = 500

# In pieces, so that this file does not name them either.
REGISTRIES = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "download.pytor" + "ch.org",
    "registry.npm" + "js.org",
    "registry.yarn" + "pkg.com",
    "conda.ana" + "conda.org",
]
MACHINE_PATH = re.compile(
    r"(?<![\w.~$}-])/(?:" + "|".join(["work", "home", "root", "Users"]) + r")/\w"
)


def room_of(module: str) -> str:
    """The room of a dotted name: `densekit.text.labels` -> `text`, `densekit` -> `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def module_name(path: Path) -> str:
    """The dotted name of a file below the repository's root."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, module: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import of a module, at any depth, relative ones resolved.

    `from densekit import text` yields `densekit.text`; a literal `import_module("...")` counts as
    an import.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")
            base = base[: len(base) - node.level + is_package] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            if target == "densekit":
                for alias in node.names:
                    is_room = alias.name in FLOOR_OF or (PACKAGE / alias.name).exists()
                    yield node.lineno, f"densekit.{alias.name}" if is_room else "densekit"
            else:
                yield node.lineno, target
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            if name in {"import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value)


def floor_violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Every import of `module` that does not go strictly down, one sentence each."""
    room = room_of(module)
    found = []
    for line, name in imports_of(source, module, is_package=is_package):
        if name.split(".")[0] != "densekit" or room_of(name) == room:
            continue
        if room_of(name) not in FLOOR_OF:
            found.append(f"{module}:{line} imports {name}, which has no floor")
        elif FLOOR_OF[room_of(name)] <= FLOOR_OF[room]:
            found.append(f"{module}:{line} imports {name}: {room_of(name)} is not below {room}")
    return found


def heavy_imports(source: str, module: str) -> list[str]:
    """Every import of a package that the driver does without, at any depth."""
    return [
        f"{module}:{line} imports {name}"
        for line, name in imports_of(source, module)
        if name.split(".")[0] in HEAVY
    ]


def project_files() -> list[Path]:
    """What a commit of everything would hold; without git, every file outside ignored folders."""
    try:
        git = ["git", "-C", str(ROOT)]
        top = subprocess.run(
            [*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True
        )
        if Path(top.stdout.strip()).resolve() == ROOT:
            listing = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
            names = subprocess.run(
                listing, capture_output=True, text=True, check=True
            ).stdout.split("\0")
            return sorted(path for name in set(names) - {""} if (path := ROOT / name).is_file())
    except (OSError, subprocess.CalledProcessError):
        pass
    ignored = {
        line.strip().strip("/")
        for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    }
    found: list[Path] = []
    folders = [ROOT]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            if path.name == ".git" or path.name in ignored or path.name.endswith(".egg-info"):
                continue
            (folders if path.is_dir() else found).append(path)
    return sorted(found)


def named_hosts_and_paths(text: str) -> list[str]:
    """Registry hosts and paths of one machine that a text names."""
    return [host for host in REGISTRIES if host in text] + [
        match.group() for match in MACHINE_PATH.finditer(text)
    ]


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(module_name(path)) for path in MODULES}
    assert rooms <= set(FLOOR_OF), f"give these a floor in FLOORS: {sorted(rooms - set(FLOOR_OF))}"


def test_imports_go_down() -> None:
    found = []
    for path in MODULES:
        source = path.read_text(encoding="utf-8")
        found += floor_violations(source, module_name(path), is_package=path.name == "__init__.py")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("densekit.text.labels", "import densekit.train.trainer"),  # up
        ("densekit.text.labels", "from densekit import model"),  # up, by name
        ("densekit.train.trainer", "from densekit.planner import memory"),  # sideways
        (
            "densekit.model.towers.tower",
            "def f():\n    from ...train import layout",
        ),  # sideways, relative, in a function
        (
            "densekit.errors",
            "import importlib\nimportlib.import_module('densekit.recipes')",
        ),  # up, by a string
        (
            "densekit",
            "from .errors import DensekitError",
        ),  # up: the package's own __init__ imports nothing
        ("densekit.cli", "import densekit.attic"),  # a room nobody placed
    ],
)
def test_floor_checker_catches(module: str, source: str) -> None:
    assert len(floor_violations(source, module, is_package=module == "densekit")) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "densekit.cli",
            "from densekit import __version__\nfrom densekit.train import trainer\nimport "
            "densekit.text",
        ),
        (
            "densekit.train.trainer",
            "from densekit.model import tower\nfrom .engine import step\nimport torch",
        ),
        ("densekit.errors", "import json"),
    ],
)
def test_floor_checker_allows(module: str, source: str) -> None:
    assert floor_violations(source, module) == []


def of_the_driver() -> list[Path]:
    """The modules that must do without torch."""
    return [
        path
        for path in MODULES
        if room_of(module_name(path)) in TORCH_FREE
        and not module_name(path).startswith(IN_THE_TRAINER)
    ]


def test_driver_names_no_heavy_package() -> None:
    found = []
    for path in of_the_driver():
        found += heavy_imports(path.read_text(encoding="utf-8"), module_name(path))
    assert not found, "\n".join(found)


def test_heavy_checker_catches() -> None:
    assert heavy_imports("def f():\n    from torch.nn import Linear", "densekit.planner.memory")
    assert not heavy_imports(
        "import torchless\nfrom . import torch_table", "densekit.planner.memory"
    )


@pytest.mark.ranks
def test_driver_imports_load_no_heavy_package() -> None:
    """Every module of the driver, imported in one fresh interpreter: none brings torch in by a
    detour.
    """
    modules = [module_name(path) for path in of_the_driver()]
    modules.remove(
        "densekit.__main__"
    ) if "densekit.__main__" in modules else None  # importing it runs the program
    program = (
        "import importlib, json, sys\n"
        "modules, heavy = json.loads(sys.argv[1])\n"
        "for module in modules:\n"
        "    importlib.import_module(module)\n"
        "    loaded = [name for name in heavy if name in sys.modules]\n"
        "    if loaded: sys.exit(f'importing {module} loads {loaded}')\n"
    )
    command = [sys.executable, "-c", program, json.dumps([modules, sorted(HEAVY)])]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_no_file_is_too_long() -> None:
    folders = [PACKAGE, ROOT / "tests", ROOT / "benchmarks", ROOT / "examples"]
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    lengths = {
        path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in files
    }
    assert lengths
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_LINES}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        module_name(path)
        for path in MODULES
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent, f"open these with a docstring: {silent}"


@pytest.mark.ranks
def test_no_registry_and_no_machine_path() -> None:
    found = []
    for path in project_files():
        data = path.read_bytes()
        if b"\0" not in data:
            names = named_hosts_and_paths(data.decode("utf-8", errors="replace"))
            found += [f"{path.relative_to(ROOT)} names {name}" for name in names]
    assert not found, "\n".join(found)


def test_host_and_path_checker_catches() -> None:
    assert named_hosts_and_paths("--index-url https://" + REGISTRIES[0] + "/simple") == [
        REGISTRIES[0]
    ]
    assert len(named_hosts_and_paths("cd /" + "home/someone/models and '/" + "work/main'")) == 2
    assert (
        named_hosts_and_paths("https://example.com/home/paper and ~/home/notes and frame/home/x")
        == []
    )


def test_every_package_has_its_tests() -> None:
    packages = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    assert packages
    missing = [name for name in packages if not any((ROOT / "tests" / name).glob("test_*.py"))]
    assert not missing, f"no test_*.py in tests/ for: {missing}"
