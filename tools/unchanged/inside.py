"""Many densekit commands in one process: to start Python for each would take minutes.

python -P inside.py REQUESTS.json ANSWERS.json, where the requests are {name: [argument, ...]}.
Imports nothing of this folder, and of densekit the entry point alone.
"""

import contextlib
import io
import json
import sys
import traceback
from pathlib import Path

from densekit.cli import main


def ask(arguments: list[str]) -> dict[str, object]:
    """What `densekit ARGUMENTS` prints, and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["densekit", *arguments]
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except Exception as error:
            code = "".join(traceback.format_exception_only(error)).strip()
    return {"exit": code, "stdout": out.getvalue(), "stderr": err.getvalue()}


if __name__ == "__main__":
    requests = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    path = Path(sys.argv[2])
    answers = {name: ask(words) for name, words in requests.items()}
    path.write_text(json.dumps(answers), encoding="utf-8")
