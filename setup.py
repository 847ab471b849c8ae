"""What pyproject.toml cannot say: a wheel also holds the recipes, which lie beside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ("recipes", "CITATION.cff")
"""From the root of the repository into densekit/shipped (densekit/files/shipped.py finds them)."""


class BuildWithRecipes(build_py):
    """Copies the recipes into what is built; an editable installation reads them in place."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "densekit" / "shipped"
        shutil.rmtree(target, ignore_errors=True)
        for name in SHIPPED:
            for path in sorted((ROOT / name).rglob("*.yaml")) or [ROOT / name]:
                copy = target / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


setup(cmdclass={"build_py": BuildWithRecipes})
