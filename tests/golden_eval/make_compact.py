"""Makes the compact set of recorded scorer outputs here from the full one.

    python tests/golden_eval/make_compact.py FULL

Of every file the cases whose JSON is short, and at least the shortest ones; prompts without the
token ids, for which the full set has a tokenizer. The recordings' inputs are made up: nothing of
any data set is in them, and nothing restricts copying.
"""

import json
import sys
from pathlib import Path
from typing import Any

LONGEST = {"prompts.json": 900}
"""Characters of a case that is kept anyway; 500 in the other files."""
AT_LEAST = 3
HEAD = ("what", "mark", "source", "versions")


def compact(full: dict[str, Any], longest: int) -> list[str]:
    """The cases that are kept, in their order, each as a line."""
    for case in full["cases"]:
        if isinstance(case["output"], dict):
            case["output"].pop("input_ids", None)
    lines = [json.dumps(case) for case in full["cases"]]
    limit = max(longest, sorted(map(len, lines))[min(AT_LEAST, len(lines)) - 1])
    return [line for line in lines if len(line) <= limit]


def main(source: Path) -> None:
    """Write every file of `source` beside this one."""
    for path in sorted(source.glob("*.json")):
        full = json.loads(path.read_text(encoding="utf-8"))
        head = "".join(f"{json.dumps(key)}: {json.dumps(full[key])},\n" for key in HEAD)
        cases = ",\n".join(compact(full, LONGEST.get(path.name, 500)))
        text = f'{{\n{head}"cases": [\n{cases}\n]\n}}\n'
        (Path(__file__).parent / path.name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
