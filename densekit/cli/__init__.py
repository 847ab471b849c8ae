"""The command line: one thin module per group of verbs."""

import sys

from densekit.errors import INTERRUPTED_CODE


def main() -> None:
    """Entry point. The verbs are imported here: Ctrl-C is answered while they are, too."""
    try:
        from densekit.cli.app import main as run
    except KeyboardInterrupt:
        print("densekit: interrupted by Ctrl-C", file=sys.stderr)
        raise SystemExit(INTERRUPTED_CODE) from None
    run()
