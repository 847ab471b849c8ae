"""One thing that was checked: by doctor, preflight, selftest or verify."""

from dataclasses import dataclass
from typing import Literal

CheckState = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """`warn`: it could not be checked, or is not there yet. The message of a `fail` says which file
    or setting, what is wrong with it, and what to do.
    """

    name: str
    state: CheckState
    message: str
