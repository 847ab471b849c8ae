"""Pin every requirements file with hashes (`make lock`), or check that none has drifted (`make
lock-check`).

Needs a package index, of which it reads metadata and, once, the source of DeepSpeed. Pins and
hashes that are there stay unless a .in file asks otherwise; `--upgrade` takes newer versions.
"""

import argparse
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU_NOTE = """\
# torch of the cpu image, as either build: the hash at the top is that of the CPU build for Python 3.11 (2.13.0+cpu,
# 200 MB), the others are those of the default build, which brings CUDA libraries (cpu-cuda.txt, several GB).
# To choose the CPU build, put its wheel into docker/wheels, or name an index that has it: `docker build --build-arg
# PIP_EXTRA_INDEX_URL=...` (the "Get started" page of PyTorch lists it). Without either the default build is taken.
# The build says which of the two it took.
#
"""
CPU_BUILD = "--hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
"""The wheel torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl, which is not on the default
index.
"""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """One requirements file and what it is made from."""

    path: str
    sources: tuple[str, ...]
    python: str = "3.11"
    """The oldest that the file is for: its pins suit every newer one."""
    constraints: tuple[str, ...] = ("requirements/train.txt",)
    """Files whose versions it follows."""
    options: tuple[str, ...] = ()


TORCH = "requirements/torch.txt"
DRIVER = ("requirements/build.in", "requirements/driver.in")
TRAIN = ("requirements/evaluate.in", "requirements/train.in")
# What torch needs whatever its build: already in train.txt.
TORCH_ALWAYS = (
    "filelock",
    "fsspec",
    "jinja2",
    "markupsafe",
    "mpmath",
    "networkx",
    "setuptools",
    "sympy",
    "torch",
    "typing-extensions",
)


def beside_train(*but: str) -> tuple[str, ...]:
    """The options that leave out what train.txt has, these packages aside."""
    lines = (ROOT / "requirements" / "train.txt").read_text(encoding="utf-8").splitlines()
    names = [found[1] for line in lines if (found := re.match(r"([\w.-]+)==", line))]
    return tuple(part for name in names if name not in but for part in ("--no-emit-package", name))


# The packages of another age that an older transformers brings itself.
OF_TRANSFORMERS = ("transformers", "huggingface-hub", "tokenizers")
LOCKS = (
    Lock(
        path="requirements/train.txt",
        sources=(*DRIVER, *TRAIN, TORCH),
        constraints=(),
        options=("--no-emit-package", "torch"),
    ),
    Lock(path="requirements/driver.txt", sources=DRIVER),
    Lock(path="requirements/dev.txt", sources=("requirements/dev.in",)),
    Lock(path="requirements/docs.txt", sources=("requirements/docs.in",)),
    Lock(path="requirements/browser.txt", sources=("requirements/browser.in",)),
    Lock(path="requirements/video.txt", sources=("requirements/video.in",), options=("--no-deps",)),
    Lock(path="requirements/demo.txt", sources=("requirements/demo.in",), options=("--no-deps",)),
    Lock(
        path="requirements/easy-vqa.txt",
        sources=("requirements/easy-vqa.in",),
        options=("--no-deps",),
    ),
    Lock(
        path="requirements/xformers.txt",
        sources=("requirements/xformers.in",),
        options=("--no-deps",),
    ),
    Lock(
        path="requirements/lmms-eval.txt",
        sources=("requirements/lmms-eval.in",),
        # Beside the trainer's environment, which has these and torch.
        options=("--no-emit-package", "torch", *beside_train()),
    ),
    Lock(
        path="requirements/lmms-eval-package.txt",
        sources=("requirements/lmms-eval-package.in",),
        options=("--no-deps",),
    ),
    Lock(
        path="requirements/transformers-4.txt",
        sources=("requirements/transformers-4.in",),
        constraints=(),
        # Beside the trainer's environment too.
        options=("--no-emit-package", "torch", *beside_train(*OF_TRANSFORMERS)),
    ),
    # In a folder of its own, with an older rich than the driver's.
    Lock(path="requirements/ro-crate.txt", sources=("requirements/ro-crate.in",), constraints=()),
    Lock(
        path="docker/requirements/cpu.txt",
        sources=("docker/requirements/cpu.in",),
        options=("--no-deps",),
    ),
    Lock(
        path="docker/requirements/cpu-cuda.txt",
        sources=("docker/requirements/cpu.in",),
        # pyproject.toml describes torch 2.13 as its CPU build; here the real one is asked.
        options=(
            "--no-config",
            *(part for name in TORCH_ALWAYS for part in ("--no-emit-package", name)),
        ),
    ),
    Lock(
        path="docker/requirements/a100.txt",
        sources=(*DRIVER, *TRAIN, "docker/requirements/a100.in"),
        python="3.12",
    ),
    Lock(
        path="docker/requirements/v100.txt",
        sources=(*DRIVER, *TRAIN, "docker/requirements/v100.in"),
        python="3.12",
    ),
    Lock(
        path="docker/requirements/tensorboard.txt", sources=("docker/requirements/tensorboard.in",)
    ),
    Lock(path="docker/requirements/sbom.txt", sources=("docker/requirements/sbom.in",)),
)


def compile_lock(lock: Lock, folder: Path, *, upgrade: bool = False) -> None:
    """Write one file below `folder`, a copy of the repository's requirements."""
    command = [
        shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv",
        *("pip", "compile", "--quiet", "--python-version", lock.python),
        *("--python-platform", "x86_64-manylinux_2_28", "--generate-hashes", "--no-emit-index-url"),
        *(["--upgrade"] if upgrade else []),
        *lock.options,
        *lock.sources,
        *(part for name in lock.constraints for part in ("-c", name)),
        *("-o", lock.path),
    ]
    settings = {
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_CUSTOM_COMPILE_COMMAND": "make lock",
        "DS_BUILD_OPS": "0",
    }
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        sys.exit(f"lock: {lock.path} cannot be resolved:\n{result.stderr.strip()}")
    if lock.path == "docker/requirements/cpu.txt":
        path = folder / lock.path
        path.write_text(with_cpu_build(path.read_text(encoding="utf-8")), encoding="utf-8")


def with_cpu_build(text: str) -> str:
    """The lock of torch with the hash of its CPU build on top and the note on how to choose."""
    lines = [line for line in text.splitlines(keepends=True) if CPU_BUILD not in line]
    pin = next(number for number, line in enumerate(lines) if line.startswith("torch=="))
    return CPU_NOTE + "".join([*lines[: pin + 1], f"    {CPU_BUILD} \\\n", *lines[pin + 1 :]])


def main() -> None:
    """Compile all files in a copy, then either replace those that differ or name them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a file would change"
    )
    parser.add_argument("--upgrade", action="store_true", help="take newer versions")
    asked = parser.parse_args()
    check = asked.check
    drifted = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(ROOT / "pyproject.toml", folder)
        for part in ("requirements", "docker/requirements"):
            shutil.copytree(ROOT / part, folder / part)
        for lock in LOCKS:
            compile_lock(lock, folder, upgrade=asked.upgrade)
            target = ROOT / lock.path
            before = target.read_text(encoding="utf-8") if target.is_file() else ""
            after = (folder / lock.path).read_text(encoding="utf-8")
            if before == after:
                continue
            drifted.append(lock.path)
            if check:
                difference = difflib.unified_diff(
                    before.splitlines(), after.splitlines(), "committed", "resolved", n=0
                )
                print("\n".join([lock.path, *list(difference)[:12]]))
            else:
                target.write_text(after, encoding="utf-8")
    if check and drifted:
        sys.exit(
            f"lock: {', '.join(drifted)} no longer follow the .in files; run `make lock` and "
            "commit the result"
        )
    changed = ", ".join(drifted) if drifted else "no file"
    print(
        f"lock: {changed} changed"
        + ("; `make setup` installs what is for this machine" if drifted else "")
    )


if __name__ == "__main__":
    main()
