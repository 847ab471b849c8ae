"""Pictures of reports for the documentation: `python -m tools.screenshots RUN [RUN]` opens the page
of a run, and of two beside each other, in chromium (`make browser`) and writes docs/assets/*.png.
"""

import sys
import tempfile
from pathlib import Path

from densekit.audit.report.write import write_comparison, write_report
from tests.support.browser import a_browser, look

ASSETS = Path(__file__).resolve().parents[1] / "docs" / "assets"
SHOTS = (
    ("report", 1200, "light"),
    ("report-dark", 1200, "dark"),
    ("report-phone", 400, "light"),
)
"""Name, width and scheme of the pictures of one run."""


def main() -> None:
    """Write them."""
    runs = [Path(name) for name in sys.argv[1:]]
    if not runs:
        sys.exit(__doc__)
    ASSETS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, a_browser() as browser:
        page = write_report(runs[0], Path(name) / "report.html")
        for shot, width, scheme in SHOTS:
            look(browser, page, width=width, scheme=scheme, shot=ASSETS / f"{shot}.png")
        if len(runs) > 1:
            page = write_comparison(runs, Path(name) / "comparison.html")
            shot_of_two = ASSETS / "comparison.png"
            look(browser, page, width=1200, scheme="light", shot=shot_of_two)


if __name__ == "__main__":
    main()
