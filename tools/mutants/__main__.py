"""Do the tests notice a small change of the code? Mutation testing of the batches, texts, loss and
scorers.

    make mutants                                           # everything: hours on one core
    make mutants ARGS=densekit/batching/weights.py         # some files

One operator, constant or condition of a file is changed at a time (tools/mutants/mutate.py), and
the quick unit tests of its room run against the changed file. A mutant that they pass has
survived: either a test is missing, or the change computes the same and belongs into
tools/mutants/equivalent.yaml, with the reason.

Verdicts are kept in .cache/mutants.jsonl, so an interrupted run goes on where it was; delete it to
begin again. Exit code 0: no mutant survived; 1: some did, or an entry of the list names no mutant;
2: a wrong command.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tools.mutants.kept import Equivalent, Results, digest_of, read_equivalents
from tools.mutants.mutate import Mutant, mutants
from tools.mutants.room import Failed, Room

ROOT = Path(__file__).resolve().parents[2]
TEXT = ("tests/text/test_encode.py", "tests/text/test_templates.py", "tests/text/test_recorded.py")
COUNTS = ("tests/batching/test_counts.py", "tests/batching/test_steps.py")
STATISTICS = "tests/evaluate/statistics"
ROOMS: dict[str, tuple[str, ...]] = {
    "densekit/batching/certificate.py": ("tests/batching/test_certificate.py",),
    "densekit/batching/counts.py": (
        "tests/batching/test_counts.py",
        "tests/batching/test_steps.py",
    ),
    "densekit/batching/order.py": ("tests/batching/test_order.py",),
    "densekit/batching/rng.py": ("tests/batching/test_rng.py",),
    "densekit/batching/run_length.py": ("tests/batching/test_run_length.py", "tests/planner"),
    "densekit/batching/run_order.py": ("tests/batching/test_certificate.py",),
    "densekit/batching/split.py": ("tests/batching/test_split.py",),
    "densekit/batching/steps.py": ("tests/batching/test_steps.py",),
    "densekit/batching/weights.py": ("tests/batching/test_token_weights.py",),
    "densekit/text/answers.py": ("tests/text/test_answers.py",),
    "densekit/text/chunks.py": ("tests/text",),
    "densekit/text/conversation.py": ("tests/text",),
    "densekit/text/encode.py": TEXT,
    "densekit/text/lengths.py": ("tests/text/test_sequence.py",),
    "densekit/text/official_walk.py": TEXT,
    "densekit/text/sequence.py": ("tests/text/test_sequence.py",),
    "densekit/text/source.py": ("tests/data/test_index.py",),
    "densekit/text/template.py": TEXT,
    "densekit/text/templates/*.py": TEXT,
    "densekit/evaluate/questions.py": ("tests/evaluate",),
    "densekit/evaluate/protocols/cells.py": ("tests/evaluate",),
    "densekit/evaluate/protocols/prompts.py": ("tests/evaluate",),
    "densekit/evaluate/scorers/*.py": ("tests/evaluate",),
    "densekit/evaluate/statistics/bootstrap.py": (f"{STATISTICS}/test_bootstrap.py",),
    "densekit/evaluate/statistics/components.py": (f"{STATISTICS}/test_rules.py",),
    "densekit/evaluate/statistics/difference.py": (f"{STATISTICS}/test_rules.py",),
    "densekit/evaluate/statistics/figures.py": (f"{STATISTICS}/test_figures.py",),
    "densekit/evaluate/statistics/interval.py": (f"{STATISTICS}/test_rules.py",),
    "densekit/evaluate/statistics/power.py": (f"{STATISTICS}/test_power.py",),
    "densekit/evaluate/statistics/reproduction.py": (f"{STATISTICS}/test_rules.py",),
    "densekit/evaluate/statistics/seeds.py": (f"{STATISTICS}/test_rules.py",),
    "densekit/evaluate/statistics/significance.py": (f"{STATISTICS}/test_significance.py",),
    "densekit/evaluate/statistics/student.py": (f"{STATISTICS}/test_student.py",),
    "densekit/model/loss.py": ("tests/model/test_loss.py",),
}
"""Files to mutate, and the tests that must notice."""
RESULTS = ("killed", "timeout", "survived", "equivalent")


def select(root: Path, rooms: dict[str, tuple[str, ...]], asked: Sequence[str]) -> dict[str, Room]:
    """Return the asked files (all for none) with their rooms; one room for the same tests."""
    made: dict[tuple[str, ...], Room] = {}
    files = {
        str(path.relative_to(root)): made.setdefault(tests, Room(root=root, tests=tests))
        for pattern, tests in rooms.items()
        for path in sorted(root.glob(pattern))
    }
    if unknown := sorted(set(asked) - set(files)):
        print(f"no file to mutate: {', '.join(unknown)}; there are: {', '.join(files)}")
        raise SystemExit(2)
    return {file: room for file, room in files.items() if not asked or file in asked}


def judge_file(
    file: str, room: Room, results: Results, equivalents: Sequence[Equivalent]
) -> tuple[Counter[str], list[str]]:
    """Judge what has no verdict yet; return how many mutants have each, and the survivors."""
    source = (room.root / file).read_text()
    code, tests = digest_of([file, source]), _digest_of_tests(room)
    counts: Counter[str] = Counter()
    survivors = []
    for mutant in mutants(source):
        if any(entry.names(file, mutant) for entry in equivalents):
            counts["equivalent"] += 1
            continue
        verdict = results.get(mutant, code=code, tests=tests)
        if verdict is None:
            if not room.seconds:
                took = room.begin()
                print(f"{' '.join(room.tests)}: {len(room.quick())} quick tests, {took:.0f} s")
            verdict = room.judge(file, mutant.tree, limit=20 + int(5 * sum(room.quick().values())))
            results.add(mutant, verdict, code=code, tests=tests, file=file)
        counts[verdict.result] += 1
        if verdict.result == "survived":
            survivors.append(_in_words(file, mutant))
            print(f"survived {survivors[-1]}", flush=True)
    return counts, survivors


def _digest_of_tests(room: Room) -> str:
    paths = [room.root / name for name in room.tests]
    files = sorted(
        file for path in paths for file in (path.glob("*.py") if path.is_dir() else [path])
    )
    return digest_of(file.read_text() for file in files)


def _in_words(file: str, mutant: Mutant) -> str:
    nth = f" (number {mutant.nth})" if mutant.nth else ""
    return f"{file}:{mutant.line}: {mutant.text}\n    {mutant.change}{nth}"


def stale(root: Path, equivalents: Sequence[Equivalent]) -> list[str]:
    """The entries of the list that name no mutant (any more)."""
    made = {
        entry.file: list(mutants((root / entry.file).read_text()))
        for entry in equivalents
        if (root / entry.file).is_file()
    }
    return [
        f"{entry.file}: {entry.text}: {entry.change}"
        for entry in equivalents
        if not any(entry.names(entry.file, mutant) for mutant in made.get(entry.file, []))
    ]


def main(
    arguments: Sequence[str], *, root: Path = ROOT, rooms: dict[str, tuple[str, ...]] = ROOMS
) -> int:
    """Run the command; `root` and `rooms` say what is mutated."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="mutate only these")
    files = select(root, rooms, parser.parse_args(arguments).files)
    listed = root / "tools" / "mutants" / "equivalent.yaml"
    equivalents = read_equivalents(listed) if listed.is_file() else []
    gone = stale(root, equivalents)
    for entry in gone:
        print(f"{listed.relative_to(root)} names a mutant that is not made: {entry}")
    results = Results(root / ".cache" / "mutants.jsonl")
    lines, survived = [], 0
    for file, room in files.items():
        try:
            counts, survivors = judge_file(file, room, results, equivalents)
        except Failed as error:
            print(f"{file}: {error}", file=sys.stderr)
            return 1
        survived += len(survivors)
        told = [
            f"{counts[name]} {name}" for name in ("killed", "timeout", "survived", "equivalent")
        ]
        lines.append(f"{file}: {counts.total()} mutants, {', '.join(told)}")
        print(lines[-1], flush=True)
    print("\n".join(["", *lines]))
    return 1 if survived or gone else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
