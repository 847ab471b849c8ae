"""How commands print what they found."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer

from densekit.spec.check import Check


def print_checks(checks: Sequence[Check], as_json: bool) -> None:
    ok = all(check.state != "fail" for check in checks)
    if as_json:
        print_json({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            print(f"{check.state:4}  {check.name}: {check.message}")
    raise typer.Exit(0 if ok else 1)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))
