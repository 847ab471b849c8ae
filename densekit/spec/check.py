"""One thing that was checked: by doctor, preflight, selftest or verify."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from densekit.errors import DataError

CheckState = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """`warn`: it could not be checked, or is not there yet. The message of a `fail` says which file
    or setting, what is wrong with it, and what to do.
    """

    name: str
    state: CheckState
    message: str


def refuse(checks: Iterable[Check]) -> None:
    """Raises DataError with every check that failed, grouped by name; what several say is said
    once.
    """
    failed = list({check.message: check for check in checks if check.state == "fail"}.values())
    if not failed:
        return
    if len(failed) == 1:
        raise DataError(failed[0].message)
    lines = [f"{len(failed)} problems"]
    for name, group in groupby(failed, key=lambda check: check.name):
        lines += [f"{name}:", *(f"  - {check.message}" for check in group)]
    raise DataError("\n".join(lines))
