"""The loss curves of the tiny recipes as text files, so that a diff shows a changed training.

`make golden-losses` writes them anew: what is then to be seen in the diff has to be meant.
"""

import tempfile
from pathlib import Path

from densekit.files.json_files import read_jsonl
from tests.support.paths import ROOT
from tests.support.workplace import RECIPES, SMALL, Workplace, train_workplace

FOLDER = ROOT / "tests" / "golden_losses"
Curve = list[tuple[int, float, float]]
"""Step, loss, gradient norm before clipping."""


def curve_of(run: Path) -> Curve:
    """What a run recorded."""
    return [
        (line["step"], line["loss"], line["grad_norm"])
        for line in read_jsonl(run / "metrics.jsonl")
    ]


def text_of(recipe: str, curve: Curve) -> str:
    """The text of a curve's file."""
    lines = [f"# {recipe} on one CPU process (`make golden-losses`) with"]
    lines += [f"#   {value}" for value in SMALL]
    lines += ["step      loss  grad_norm"]
    lines += [f"{step:4d}  {loss:8.5f}  {norm:9.5f}" for step, loss, norm in curve]
    return "\n".join(lines) + "\n"


def read_curve(recipe: str) -> Curve:
    """The curve of a recipe's file."""
    text = (FOLDER / f"{recipe}.txt").read_text(encoding="utf-8")
    rows = [line.split() for line in text.splitlines() if line.strip()[:1].isdigit()]
    return [(int(step), float(loss), float(norm)) for step, loss, norm in rows]


def main() -> None:
    """Train the tiny recipes and write their files."""
    with tempfile.TemporaryDirectory() as name:
        train_workplace(Path(name))
        for recipe in RECIPES:
            text = text_of(recipe, curve_of(Workplace(Path(name)).run_dir(recipe)))
            (FOLDER / f"{recipe}.txt").write_text(text, encoding="utf-8")
            print(f"{FOLDER.relative_to(ROOT)}/{recipe}.txt written")


if __name__ == "__main__":
    main()
