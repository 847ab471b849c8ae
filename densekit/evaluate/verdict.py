"""Does a run reproduce what the paper reports? Every benchmark of its row, by the rules that
docs/verdicts.md states.
"""

from statistics import mean

from densekit.errors import UsageError
from densekit.evaluate.alike import Asked, asked_alike
from densekit.evaluate.arms import Arm, differing
from densekit.evaluate.calibration import targets_by_step, uncalibrated
from densekit.evaluate.compare import compare, prior_of, seed_term
from densekit.evaluate.protocols import benchmark_names, get_protocol
from densekit.evaluate.statistics.bootstrap import replicates, standard_error
from densekit.evaluate.statistics.interval import accuracy_interval, symmetric_interval
from densekit.evaluate.statistics.reproduction import (
    Reported,
    Reproduced,
    reproduce,
    reproductions,
)
from densekit.recipes.load import load_recipe, recipe_names
from densekit.recipes.paper import Paper, Score, decimals
from densekit.runs.calibrations import Calibrations
from densekit.runs.verdicts import Line, Verdict, Withheld

SEED_ALONE = {"seed"}
NEEDS_SEEDS = "nothing says how far seeds lie apart on this benchmark: judge at least 2 runs"


def judge(arm: Arm, baseline: Arm | None, paper: Paper, known: Calibrations) -> Verdict:
    """The verdict on the runs of one recipe, and on its gain over those of a baseline.

    Raises UsageError for an imported checkpoint; as `compare` where a baseline is given.
    """
    if arm.recipe is None:
        raise UsageError(
            f"{arm.members[0].path} is an imported checkpoint: which recipe it belongs to is not "
            "known; `densekit compare` compares it with a run"
        )
    changed = changed_fields(arm)
    reported = {} if changed else paper.scores(arm.name)
    names = [*reported, *(name for name in arm.benchmarks if name not in reported)]
    rows = {name: _line(name, arm, reported.get(name), paper, known) for name in names}
    said = reproductions({name: found for name, (_, found) in rows.items() if found is not None})
    lines = [
        line.model_copy(update={"verdict": said[name][0], "p": said[name][1]})
        if name in said
        else line
        for name, (line, _) in rows.items()
    ]
    return Verdict(
        recipe=arm.name,
        runs=arm.runs,
        changed=changed,
        evaluations=tuple(
            sorted(
                {
                    folder.path.name
                    for member in arm.members
                    for folder, _ in member.results.values()
                }
            )
        ),
        calibrated=tuple(
            f"{record.step} {record.on}: {record.model} {record.benchmark} {record.value:.2f}"
            for record in known.records
            if record.passed
        ),
        lines=tuple(lines),
        gains=None if baseline is None else compare(arm, baseline, paper),
    )


def changed_fields(arm: Arm) -> tuple[str, ...]:
    """The fields in which a run differs from the recipe of its name that ships (`--set`), seed
    apart; nothing for a recipe that does not ship: the paper reports nothing on it.
    """
    if arm.recipe is None or arm.name not in recipe_names():
        return ()
    shipped = load_recipe(arm.name).math()
    return tuple(differing(shipped.as_json(), arm.recipe.as_json(), skip=SEED_ALONE))


def _line(
    name: str, arm: Arm, reported: Score | None, paper: Paper, known: Calibrations
) -> tuple[Line, Reproduced | None]:
    """A benchmark's line without its verdict, and what the statistics are to judge; where they are
    not asked, the line says why.
    """
    asked = asked_alike(name, arm.members)
    title = arm.titles.get(name) or paper.benchmarks[name].title
    line = Line(benchmark=name, title=title)
    if asked is not None:
        ours = mean(asked.values)
        line = line.model_copy(
            update={
                "ours": ours,
                "by_run": tuple(asked.values),
                "interval": _interval(asked, ours),
                "note": asked.incomplete or _other_than_official(asked),
            }
        )
    if reported is None:
        if asked is None:
            line = line.model_copy(update={"note": _why_no_value(name, arm)})
        return line, None
    margin = _margin(paper, arm.name, name)
    found = None
    if asked is not None:
        found = reproduce(asked.values, _printed(reported, margin, paper))
    update: dict[str, object] = {"reported": reported.value, "margin": margin}
    if found is not None:
        update["reach"], update["smallest_margin"] = found.reach, found.smallest_margin
        update["seed"] = seed_term(found.seeds)
    withheld = _withheld(name, asked, arm, paper, known)
    if withheld is not None:
        update["verdict"], update["note"] = withheld
    elif found is None:
        update["note"] = NEEDS_SEEDS
    return line.model_copy(update=update), None if withheld else found


def _withheld(
    name: str, asked: Asked | None, arm: Arm, paper: Paper, known: Calibrations
) -> tuple[Withheld, str] | None:
    """Why the statistics are not asked, and in words; None where they are."""
    protocol = get_protocol(name) if name in benchmark_names() else None
    if protocol is None:
        judge_model = paper.protocols[paper.benchmarks[name].protocol].judge
        return "OTHER PROTOCOL", f"the paper's judge is {judge_model}"
    if protocol.other_protocol:
        return "OTHER PROTOCOL", protocol.other_protocol
    if asked is None:
        return "INCOMPLETE", _why_no_value(name, arm)
    if asked.incomplete:
        return "INCOMPLETE", asked.incomplete.removeprefix("INCOMPLETE: ")
    folders = [member.results[name][0] for member in arm.members]
    missing = uncalibrated(known, protocol, folders, targets_by_step(paper))
    return ("UNCALIBRATED", missing) if missing else None


def _why_no_value(name: str, arm: Arm) -> str:
    results = arm.results(name)
    problem = next((result.problem for result in results if result and result.problem), None)
    if problem:
        return problem
    there = sum(result is not None for result in results)
    return f"evaluated in {there} of {len(results)} runs" if there else "not evaluated"


def _other_than_official(asked: Asked) -> str:
    """How the answers were generated otherwise than by the official runner, which moves a number
    by about `decoding_sd`.
    """
    result = asked.results[0]
    notes = []
    if result.dtype != result.official_dtype:
        notes.append(f"answered in {result.dtype}, officially in {result.official_dtype}")
    if result.batch_size != asked.protocol.decoding.batch_size:
        flips = result.flip_rate
        rate = (
            f" ({flips.flips} of {flips.questions} answers differ from those alone)"
            if flips
            else ""
        )
        notes.append(f"batches of {result.batch_size}{rate}")
    return "; ".join(notes)


def _interval(asked: Asked, ours: float) -> tuple[float, float]:
    values = replicates(asked.tables, name=asked.protocol.name).mean(axis=1)
    table = asked.tables[0]
    sd = standard_error(values, table)
    figure = asked.protocol.figure
    to_100 = figure.endswith("accuracy") or figure == "f1"
    interval = accuracy_interval if to_100 else symmetric_interval
    return interval(ours, sd, len(table.clusters))


def _printed(score: Score, margin: float | None, paper: Paper) -> Reported:
    noise = paper.noise.get(score.benchmark)
    return Reported(
        value=float(score.value),
        unit=float(10.0 ** -decimals(score.value)),
        prior=prior_of(paper, score.benchmark),
        decoding_sd=noise.decoding_sd if noise else 0.0,
        margin=margin,
    )


def _margin(paper: Paper, recipe: str, benchmark: str) -> float | None:
    """Half of the printed gain over the baseline; None where the paper prints none."""
    gain = paper.gain(recipe, benchmark)
    return gain / 2 if gain is not None and gain > 0 else None
