"""Verdicts, comparisons and power as people read them."""

from collections.abc import Iterator, Sequence

from densekit.evaluate.power import PowerRow
from densekit.runs.calibrations import Calibration
from densekit.runs.verdicts import Gain, Gains, Line, Verdict

CALIBRATION_HEADER = ("step", "model", "benchmark", "value", "known", "on", "")
NOT_SHOWN = "NOT SHOWN"


def verdict_lines(found: Verdict, baseline: str | None) -> Iterator[str]:
    """The table against the paper's numbers, its notes, and the gain over a baseline."""
    yield f"{found.recipe}: {_runs(len(found.runs))}"
    for line in found.calibrated:
        yield f"calibrated: {line}"
    if found.changed:
        yield (
            f"not the paper's recipe ({', '.join(found.changed)} changed): the paper reports "
            "nothing on it"
        )
    yield ""
    reported = any(line.reported is not None for line in found.lines)
    if not found.lines:
        yield "no benchmark was evaluated, and the paper reports nothing"
    elif reported:
        rows = [_reported_row(line) for line in found.lines]
        yield from table(rows, ("", "reported", "ours", "a rerun lies within", "verdict", "note"))
        yield ""
        yield from _seed_lines(found.lines)
    else:
        rows = [_own_row(line) for line in found.lines]
        yield from table(rows, ("", "ours", "95 % over questions", "note"))
    if found.gains is not None:
        yield ""
        yield from gain_lines(found.gains)
    elif baseline is not None and not found.changed:
        yield f"The paper's baseline is {baseline}: --baseline RUN,... tests the gain over it."


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


def gain_lines(found: Gains) -> Iterator[str]:
    """One line a benchmark: the difference with its interval, the claim, and what it rests on."""
    runs = f"{_runs(len(found.runs))} against {len(found.baseline_runs)}"
    yield f"{found.recipe} better than {found.baseline}? ({runs})"
    yield ""
    header = ("", "A", "B", "A - B", "95 % interval", "p (Holm)", "claim", "")
    yield from table([_gain_row(gain) for gain in found.lines], header)
    yield ""
    for gain in found.lines:
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
