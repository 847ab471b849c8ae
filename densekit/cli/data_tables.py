"""Tables of an examination of data: composition, lengths, findings, repairs, certificate."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from densekit.cli.output import counted
from densekit.data.doctor.conversations import histogram
from densekit.data.doctor.examine import Examination
from densekit.data.doctor.findings import Group
from densekit.data.doctor.report import known_faults

SHOWN = 3
"""Places of a finding that a table names."""
BAR = 30
"""Characters of the longest bar of a histogram."""


def print_examination(found: Examination, listed: Path | None) -> None:
    """Everything that was found. `listed`: the file that lists every finding."""
    console = Console(highlight=False, soft_wrap=False)
    subject, entries = found.subject, found.entries
    console.print(f"{escape(str(subject.annotations))}, images in {escape(str(subject.images))}")
    if found.files is not None:
        with_image = sum(map(len, entries.images.values()))
        console.print(
            f"{counted(entries.count, 'entry', 'entries')}: {with_image:,} with an image, "
            f"{entries.text_only:,} text only; {_looked_at(found)}"
        )
        _composition(console, found)
        _lengths(console, "words", entries.words)
        _lengths(console, "tokens", found.tokens)
    for repaired in found.repaired:
        failed = f": {repaired.failed}" if repaired.failed else ""
        verb = "not repaired" if failed else "repaired"
        console.print(escape(f"{verb}: {repaired.name} from {repaired.source}{failed}"))
    _findings(console, found.findings.groups())
    if known := known_faults(found):
        console.print(f"What is known of {escape(found.subject.name)}:")
        for line in known:
            console.print(escape(f"- {line}"))
    if listed:
        console.print(escape(f"every finding is listed in {listed}"), soft_wrap=True)
    if found.certificate is not None:
        files = counted(len(found.certificate.files), "file")
        console.print(f"certificate {found.certificate.root} over {files}", soft_wrap=True)
        if found.certificate_file is not None:
            console.print(escape(f"written to {found.certificate_file}"), soft_wrap=True)
    console.print(_verdict(found))


def _looked_at(found: Examination) -> str:
    assert found.files is not None
    pictures = found.files.pictures.values()
    decoded = sum(picture.sha256 is not None for picture in pictures)
    named = counted(len(found.entries.images), "image")
    again = f", {found.files.again:,} known from before" if found.files.again else ""
    return f"{len(pictures):,} of {named} there, {decoded:,} decoded{again}"


def _verdict(found: Examination) -> str:
    notes = counted(found.notes, "note")
    if not found.errors:
        return f"ok: training takes these data ({notes})"
    return f"fail: {counted(found.errors, 'error')}, {notes}"


def _composition(console: Console, found: Examination) -> None:
    table = Table("folder", box=SIMPLE)
    for column in ("entries", "images", "files there"):
        table.add_column(column, justify="right")
    for folder in found.folders:
        files = "" if folder.files is None else f"{folder.files:,}"
        table.add_row(
            escape(folder.name or "."), f"{folder.entries:,}", f"{folder.images:,}", files
        )
    if found.entries.text_only:
        table.add_row("(text only)", f"{found.entries.text_only:,}", "", "")
    console.print(table)


def _lengths(console: Console, what: str, values: Counter[int]) -> None:
    ranges = histogram(values)
    if not ranges:
        return
    table = Table(what, box=SIMPLE)
    table.add_column("entries", justify="right")
    table.add_column("")
    most = max(count for _, _, count in ranges)
    for low, high, count in ranges:
        name = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        table.add_row(name, f"{count:,}", "#" * max(1, round(BAR * count / most)))
    console.print(table)


def _findings(console: Console, groups: Iterable[Group]) -> None:
    table = Table("", "kind", box=SIMPLE)
    table.add_column("count", justify="right")
    table.add_column("first places", overflow="fold")
    table.add_column("what to do")
    for group in groups:
        lines = [f"{place}: {detail}" if detail else place for place, detail in group.places]
        more = len(lines) - SHOWN
        shown = [line[:300] for line in lines[:SHOWN]] + (
            [f"and {more:,} more"] if more > 0 else []
        )
        table.add_row(
            group.severity,
            group.kind.what,
            f"{len(group.places):,}",
            escape("\n".join(shown)),
            escape(group.remedy),
        )
    if table.row_count:
        console.print(table)
