"""A side of the comparison: a checkout, folders to work in, and its command line."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PASSED = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")
FIXED = {
    "LANG": "C.UTF-8",
    "COLUMNS": "100",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
}
"""With PASSED, all that a process inherits: ACCELERATE_*, DS_* and the like can change numbers."""
TIMEOUT = 900
UNCOPIED = (".git", ".venv", ".cache", "runs", "__pycache__")


class Failed(Exception):
    """A command that has to succeed did not, or imported a densekit from elsewhere."""


def extract(repository: Path, commit: str, folder: Path) -> None:
    """Write the files of a commit."""
    command = ["git", "-C", str(repository), "archive", "--format=tar", commit]
    archive = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def snapshot(tree: Path, folder: Path) -> None:
    """Copy a working tree without what git ignores: an edit during the comparison has no effect."""
    if not (tree / ".git").exists():
        shutil.copytree(tree, folder, ignore=shutil.ignore_patterns(*UNCOPIED), dirs_exist_ok=True)
        return
    options = ["-z", "--cached", "--others", "--exclude-standard"]
    command = ["git", "-C", str(tree), "ls-files", *options]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in sorted(set(listed.split("\0")) - {""}):
        if (tree / name).is_file():  # a file that was deleted is still listed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, folder / name)


@dataclass(frozen=True)
class Side:
    """One of the two; `top` holds `checkout` and, in `work`, everything that is written."""

    name: str
    top: Path
    witnesses: list[str] = field(default_factory=list)
    """The densekit folder of every process that imported one."""

    @property
    def checkout(self) -> Path:
        """The files of the commit or of the working tree."""
        return self.top / "checkout"

    def place(self, name: str) -> Path:
        """A folder of its own to run commands in."""
        folder = self.top / "work" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def densekit(self, place: Path, *arguments: str, processes: int = 1) -> str:
        """`python -m densekit ...` as a user runs it; returns what it prints. Raises Failed.

        At least `processes` processes must have imported densekit, each that of this checkout.
        """
        return self._python(place, ["-m", "densekit", *arguments], processes)

    def ask(self, place: Path, requests: dict[str, list[str]]) -> dict[str, Any]:
        """Exit code and output of many commands by name; JSON parsed, other text cut into lines."""
        asked, answered = place / "requests.json", place / "answers.json"
        asked.write_text(json.dumps(requests), encoding="utf-8")
        self._python(place, ["-P", str(HERE / "inside.py"), str(asked), str(answered)], 1)
        answers = json.loads(self.plain(answered.read_text(encoding="utf-8")))
        for answer in answers.values():
            answer["stdout"] = parsed(answer["stdout"])
            answer["stderr"] = answer["stderr"].splitlines()
        return dict(answers)

    def plain(self, text: str) -> str:
        """A text without the paths of this side and of the interpreter, which differ elsewhere."""
        text = text.replace(str(self.checkout), "<checkout>")
        return text.replace(str(self.top / "work"), "<work>").replace(sys.executable, "<python>")

    def imported_from(self) -> str:
        """`densekit.__file__` in a process of this side. Raises Failed if it is another."""
        command = ["-c", "import densekit; print(densekit.__file__)"]
        return self._python(self.place("import"), command, 1).strip()

    def _python(self, place: Path, arguments: list[str], processes: int) -> str:
        witness = Path(tempfile.mkdtemp(prefix="witness-", dir=self.place("witnesses")))
        environment = {name: os.environ[name] for name in PASSED if name in os.environ} | FIXED
        environment |= {
            "HOME": str(self.place("home")),
            "PYTHONPATH": f"{self.checkout}{os.pathsep}{HERE / 'witness'}",
            "UNCHANGED_WITNESS": str(witness),
        }
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=place,
            env=environment,
            text=True,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            lines = [*done.stdout.splitlines()[-5:], *done.stderr.splitlines()[-25:]]
            told = self.plain("\n".join(lines))
            raise Failed(f"{' '.join(arguments)}: exit code {done.returncode}\n{told}")
        self._hear(witness, processes)
        return done.stdout

    def _hear(self, witness: Path, processes: int) -> None:
        told = [json.loads(path.read_text(encoding="utf-8")) for path in witness.iterdir()]
        own = self.checkout / "densekit"
        for file in (file for files in told for file in files):
            if not Path(file).is_relative_to(own):
                raise Failed(f"densekit was imported from elsewhere than {own}: {file}")
        if len(told) < processes:
            raise Failed(f"{len(told)} processes say where densekit came from, not {processes}")
        self.witnesses.extend(str(own) for _ in told)


def parsed(text: str) -> Any:
    """Printed JSON as a value, anything else as lines."""
    try:
        return json.loads(text)
    except ValueError:
        return text.splitlines()
