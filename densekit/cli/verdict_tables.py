"""Verdicts, comparisons and power as people read them."""

from collections import Counter
from collections.abc import Iterator, Sequence

from densekit.cli.output import counted, wrapped
from densekit.evaluate.power import PowerRow
from densekit.runs.calibrations import Calibration
from densekit.runs.verdicts import WORDS, Gain, Gains, Line, Verdict

CALIBRATION_HEADER = ("step", "model", "benchmark", "value", "known", "on", "")
REPORTED_HEADER = ("", "reported", "ours", "a rerun lies within", "verdict", "note")
OWN_HEADER = ("", "ours", "95 % over questions", "note")
NOT_SHOWN = "NOT SHOWN"
SCREEN, COLUMNS = 24, 80
"""Of a terminal that holds the verdict on one arm."""


def verdict_lines(found: Verdict, baseline: str | None, *, why: bool) -> Iterator[str]:
    """The table against the paper's numbers, the gain over a baseline, and the verdict last: with
    `why` everything that it rests on, without it what a screen of 24 lines of 80 columns has room
    for, as long as no gain is asked about.
    """
    above = [*_above(found, baseline, why=why)]
    verdict = f"{found.word}: {_because(found)}"
    yield from above
    if not why:
        notes = _grouped_notes(found.lines)
        room = SCREEN - sum(map(_height, (*above, verdict))) - 2  # the prompt, and what is hidden
        shown = len(notes)
        while shown and sum(map(_height, notes[:shown])) > room:
            shown -= 1
        yield from notes[:shown]
        if hidden := [*_hidden(found, more_notes=len(notes) - shown)]:
            yield f"with --why: {', '.join(hidden)}"
    yield verdict


def _above(found: Verdict, baseline: str | None, *, why: bool) -> Iterator[str]:
    """What stands above the notes and the verdict."""
    yield f"{found.recipe}: {_runs(len(found.runs))}"
    for line in found.calibrated if why else ():
        yield f"calibrated: {line}"
    if found.changed:
        yield (
            f"not the paper's recipe ({', '.join(found.changed)} changed): the paper reports "
            "nothing on it"
        )
    if not found.lines:
        yield "no benchmark was evaluated, and the paper reports nothing"
    elif any(line.reported is not None for line in found.lines):
        rows = [_reported_row(line) for line in found.lines]
        yield from _table(rows, REPORTED_HEADER, why=why)
        yield from _seed_lines(found.lines) if why else ()
    else:
        yield from _table([_own_row(line) for line in found.lines], OWN_HEADER, why=why)
    if found.gains is not None:
        yield from gain_lines(found.gains, why=why)
    elif baseline is not None and not found.changed:
        yield f"The paper's baseline is {baseline}: --baseline RUN,... tests the gain over it."


def _grouped_notes(lines: Sequence[Line]) -> list[str]:
    """Each note once, with the benchmarks that it is about, the most telling verdict first."""
    titles: dict[str, list[str]] = {}
    for line in sorted(lines, key=lambda line: WORDS.index(line.verdict) if line.verdict else -1):
        if line.note:
            titles.setdefault(line.note, []).append(line.title)
    return [f"note: {', '.join(names)}: {note}" for note, names in titles.items()]


def _height(line: str) -> int:
    """Lines that it takes on a screen."""
    return len(wrapped(line, COLUMNS))


def _hidden(found: Verdict, *, more_notes: int) -> Iterator[str]:
    """What --why adds."""
    seeds = any(line.seed is not None for line in found.lines)
    for count, noun in ((more_notes, "more note"), (len(found.calibrated), "calibration")):
        if count:
            yield counted(count, noun)
    if seeds or found.gains is not None:
        yield "the noise of seeds"


def _because(found: Verdict) -> str:
    """How many numbers have which verdict, and how many claims."""
    numbers = ", ".join(f"{count} {word}" for word, count in found.counts.items())
    parts = [f"{numbers} (of {sum(found.counts.values())} reported)"]
    if not numbers:
        parts = ["the paper reports nothing on these runs"]
    if found.gains is not None:
        claims = Counter(gain.claim for gain in found.gains.lines)
        words = ", ".join(f"{count} {word}" for word, count in claims.items())
        parts.append(f"better than {found.gains.baseline}: {words or 'no benchmark of both'}")
    return "; ".join(parts)


def _table(rows: Sequence[Sequence[str]], header: Sequence[str], *, why: bool) -> Iterator[str]:
    """A table; without `why` without its last column."""
    if why:
        return table(rows, header)
    return table([row[:-1] for row in rows], header[:-1])


def _reported_row(line: Line) -> tuple[str, ...]:
    reach = "" if line.reach is None else f"{line.reported:g} ± {_number(line.reach)}"
    return (
        line.title,
        "" if line.reported is None else f"{line.reported:g}",
        _values(line),
        reach,
        line.verdict or "",
        line.note,
    )


def _own_row(line: Line) -> tuple[str, ...]:
    interval = "" if line.interval is None else f"{_number(line.interval[0])} to "
    end = "" if line.interval is None else _number(line.interval[1])
    return (line.title, _values(line), interval + end, line.note)


def _values(line: Line) -> str:
    if line.ours is None:
        return "-"
    if len(line.by_run) < 2:
        return _number(line.ours)
    return f"{_number(line.ours)} ({_number(min(line.by_run))} to {_number(max(line.by_run))})"


def _seed_lines(lines: Sequence[Line]) -> Iterator[str]:
    for line in lines:
        if line.seed is not None:
            yield f"{line.title}: seed sd {line.seed.sd:.2g} from {line.seed.source}"
            if line.margin is not None and line.smallest_margin is not None:
                needs = "" if line.smallest_margin < line.margin else ", which no value could meet"
                yield (
                    f"{line.title}: REPRODUCED means within {line.margin:g}, half the reported "
                    f"gain; these runs need {_number(line.smallest_margin)}{needs}"
                )


def gain_lines(found: Gains, *, why: bool) -> Iterator[str]:
    """One line a benchmark: the difference with its interval, and the claim; with `why` what would
    show it and what it rests on.
    """
    runs = f"{_runs(len(found.runs))} against {len(found.baseline_runs)}"
    yield f"{found.recipe} better than {found.baseline}? ({runs})"
    header = ("", "A", "B", "A - B", "95 % interval", "p (Holm)", "claim", "")
    yield from _table([_gain_row(gain) for gain in found.lines], header, why=why)
    for gain in found.lines if why else ():
        if gain.seed is not None:
            prior = "" if gain.seed.own else ": no runs of one's own, so the claim rests on it"
            yield (
                f"{gain.title}: seed sd {gain.seed.sd:.2g} from {gain.seed.source}{prior}; "
                f"question sd {gain.question_sd:.2g}"
            )
        if gain.note:
            yield f"{gain.title}: {gain.note}"
    if found.left_out:
        yield f"left out, without a value in every run: {', '.join(found.left_out)}"


def _gain_row(gain: Gain) -> tuple[str, ...]:
    return (
        gain.title,
        _number(gain.a),
        _number(gain.b),
        f"{gain.difference:+.2f}",
        f"[{gain.low:+.2f}, {gain.high:+.2f}]",
        f"{gain.p:.2g}",
        gain.claim,
        _what_would_show(gain),
    )


def _what_would_show(gain: Gain) -> str:
    if gain.claim != NOT_SHOWN or gain.seed is None or gain.effect is None:
        return "" if gain.reported is None else f"reported {gain.reported:+g}"
    if gain.effect <= 0:
        return "A is not ahead"
    whose = "the reported " if gain.reported else ""
    if gain.runs_needed is None:
        return f"no number of runs would show {whose}{gain.effect:+.2f}: too few questions"
    return f"{gain.runs_needed} runs an arm would show {whose}{gain.effect:+.2f}"


def power_lines(rows: Sequence[PowerRow]) -> Iterator[str]:
    """A table of runs and differences, and where its noise is from."""
    shown = sorted({runs for row in rows for runs in row.shown})
    header = ["", "difference", "runs an arm", "on these questions", "questions"]
    header += [f"{runs} runs show" for runs in shown]
    yield from table([_power_row(row, shown) for row in rows], header)
    yield ""
    yield "Runs an arm that show the difference in four of five cases, both arms with own seeds."
    yield from dict.fromkeys(
        f"{row.title}: seed sd {row.seed_sd:g} ({row.seed_source}), question sd {row.question_sd:g}"
        for row in rows
    )


def _power_row(row: PowerRow, shown: Sequence[int]) -> tuple[str, ...]:
    whose = row.title if row.recipe is None else f"{row.recipe} {row.title}"
    questions = "" if row.questions_needed is None else f"{row.questions_needed:,}"
    if row.questions is not None and questions:
        questions += f" of {row.questions:,}"
    if row.effect is None:
        counts = ["", "", "", ""]
    else:
        needed = (row.runs, row.runs_these_questions)
        counts = [f"{row.effect:+g}", *(str(runs or "over 1,000") for runs in needed), questions]
    return (whose, *counts, *(f"{row.shown[runs]:+.2f}" for runs in shown))


def calibration_row(record: Calibration) -> tuple[str, ...]:
    """One record of `densekit calibrate`."""
    known = f"{record.expected:g} ± {record.tolerance:g}"
    state = "ok" if record.passed else "OFF"
    return (
        record.step,
        record.model,
        record.benchmark,
        f"{record.value:.2f}",
        known,
        str(record.on),
        state,
    )


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> Iterator[str]:
    """Columns as wide as their widest cell; the last is as long as it is."""
    cells = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 200 else f"{value:.2f}"


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"
