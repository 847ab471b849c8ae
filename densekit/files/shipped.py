"""Where the files lie that ship with the kit and are no part of the package: its recipes, and how
to cite it. In a checkout that is its top, in a wheel a folder of the package (setup.py).
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_IN_WHEEL = _PACKAGE / "shipped"
SHIPPED = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent
