"""The command line: one thin module per group of verbs."""

import gc
import os
import sys

from densekit.errors import INTERRUPTED_CODE

COLLECT_AFTER = 100_000
"""Objects made before garbage is looked for, in a command that imports, computes and ends: Python's
own 700 cost an eighth of the time of `densekit plan`.
"""
USUAL = gc.get_threshold()


def main() -> None:
    """Entry point. The verbs are imported here: Ctrl-C is answered while they are, too."""
    gc.set_threshold(COLLECT_AFTER, *USUAL[1:])
    # It would look through all installed packages for plugins, of which densekit uses none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        from densekit.cli.app import main as run
    except KeyboardInterrupt:
        print("densekit: interrupted by Ctrl-C", file=sys.stderr)
        raise SystemExit(INTERRUPTED_CODE) from None
    run()
