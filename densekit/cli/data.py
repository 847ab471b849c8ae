"""`densekit data ...`: what is wrong or odd about an annotation file and its images, what was
verified of it, and its description for others.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densekit.cli.options import AsJson, CacheDir, DataDir, ModelsDir
from densekit.cli.output import counted, print_json

if TYPE_CHECKING:
    from densekit.data.doctor.examine import Depth, Examination

PANEL = "Data and models"
commands = typer.Typer()


def complete_subjects(incomplete: str) -> list[str]:
    """Names of data sets and recipes for shell completion."""
    from densekit.data.catalog import data_sets
    from densekit.recipes.load import recipe_names

    names = [entry.name for entry in data_sets("training")] + list(recipe_names())
    return [name for name in names if name.startswith(incomplete)]


def complete_data_sets(incomplete: str) -> list[str]:
    """Names of the catalog for shell completion."""
    from densekit.data.catalog import data_sets

    return [entry.name for entry in data_sets() if entry.name.startswith(incomplete)]


SubjectName = Annotated[
    str,
    typer.Argument(
        help="A data set of the catalog, a recipe, or an annotation file",
        autocompletion=complete_subjects,
        show_default=False,
    ),
]
Images = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of the images (default: the recipe's, or the file's)"),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Processes (default: the CPUs; 0: this one)"),
]


@commands.command(epilog="Example: densekit data verify LLaVA-Instruct-150K --sample 2000")
def verify(
    name: SubjectName,
    sample: Annotated[
        int, typer.Option("--sample", min=0, help="Decode so many images, drawn from --seed")
    ] = 0,
    full: Annotated[
        bool,
        typer.Option("--full", help="Decode and hash every image, and write a data certificate"),
    ] = False,
    images: Images = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make the repairs that the catalog records")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            help="--full: the certificate to compare with (default: the one that is kept)",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Draws the sample")] = 0,
    workers: Workers = None,
    data_dir: DataDir = None,
    models_dir: ModelsDir = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    """Find everything that is wrong or odd about an annotation file and its images.

    Every entry and the header of every image are looked at; --sample decodes some images, --full
    all. What was examined is kept in the cache, so that the same command goes on after an
    interruption.

    Exit code 0: training takes the data, notes or not; 3: it refuses them.
    """
    from densekit.cli.site import site_settings
    from densekit.data.doctor.examine import Request, examine
    from densekit.data.doctor.report import as_json as report
    from densekit.data.doctor.report import list_findings
    from densekit.data.doctor.subject import find_subject
    from densekit.errors import DataError, UsageError

    if full and sample:
        raise UsageError("--sample --full: give one of the two")
    if against and not full:
        raise UsageError("--against compares what --full finds: give --full too")
    roots = site_settings(data_dir=data_dir, models_dir=models_dir, cache_dir=cache_dir).roots
    depth: Depth = "full" if full else "sample" if sample else "headers"
    request = Request(
        depth=depth,
        sample=sample,
        seed=seed,
        repair=repair,
        against=against,
        workers=_processes(workers),
    )
    found = examine(find_subject(name, roots, images), request, roots.cache)
    listed = list_findings(found, roots.cache)
    if as_json:
        print_json(report(found, listed))
    else:
        _print(found, listed)
    raise typer.Exit(DataError.exit_code if found.errors else 0)


@commands.command(epilog="Example: densekit data count vicuna7b_stage2")
def count(
    name: SubjectName,
    workers: Workers = None,
    data_dir: DataDir = None,
    models_dir: ModelsDir = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    """Count the tokens of every sample of a recipe's data ahead of training.

    Training does without, and then counts as it goes: until all is counted, ranks also tokenise
    samples of others. Counts are kept in the cache for every run with this data, tokenizer and
    template; the same command goes on after an interruption.
    """
    from densekit.cli.site import site_settings
    from densekit.data.counting import count_tokens
    from densekit.data.doctor.subject import find_subject
    from densekit.data.doctor.tokens import counting_of
    from densekit.errors import UsageError

    roots = site_settings(data_dir=data_dir, models_dir=models_dir, cache_dir=cache_dir).roots
    subject = find_subject(name, roots)
    counting = counting_of(subject)
    if counting is None or not subject.image_tokens:
        raise UsageError(
            f"{name}: tokens are counted with a recipe's template, tokenizer and model: give the "
            "name of a recipe whose models are there (`densekit fetch RECIPE --only models`)"
        )
    found = count_tokens(counting, roots.cache, workers=_processes(workers))
    totals = found.totals
    if as_json:
        print_json({**vars(totals), "counted_before": found.before, "file": str(found.file)})
        return
    now = totals.samples - found.before
    print(f"{totals.samples:,} samples: {found.before:,} counted before, {now:,} now")
    print(
        f"{totals.tokens / totals.samples:.1f} tokens on average, {totals.longest:,} in the "
        f"longest, {totals.label_positions / totals.samples:.1f} label positions"
    )
    for note, number in totals.notes.items():
        print(f"{note} {number:,}")
    print(f"kept in {found.file}; plans of these data take their hours from it")


@commands.command(epilog="Example: densekit data pin LLaVA-Instruct-150K")
def pin(
    name: SubjectName,
    images: Images = None,
    again: Annotated[
        bool, typer.Option("--again", help="Pin what is there now in place of what is pinned")
    ] = False,
    workers: Workers = None,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Record the hashes of a verified data set, so that another copy is told apart.

    Nobody published hashes of most data sets. What is recorded is what is on this disk, in
    densekit_pins.json of the data root: the annotation file, and the root of the data certificate
    where `data verify --full` has written one. Data that training refuses are not pinned.
    """
    from densekit.cli.site import site_settings
    from densekit.data.doctor.examine import Request, pin_verified
    from densekit.data.doctor.subject import find_subject

    roots = site_settings(data_dir=data_dir, cache_dir=cache_dir).roots
    pinned, file = pin_verified(
        find_subject(name, roots, images), Request(workers=_processes(workers)), roots, again=again
    )
    print(f"annotations {pinned.annotations_sha256}")
    print(f"images      {pinned.certificate_root or 'not pinned: `densekit data verify --full`'}")
    print(f"recorded in {file}")


@commands.command(epilog="Example: densekit data croissant LLaVA-Pretrain")
def croissant(
    name: Annotated[
        str,
        typer.Argument(
            help="A data set or benchmark of the catalog",
            autocompletion=complete_data_sets,
            show_default=False,
        ),
    ],
    data_dir: DataDir = None,
) -> None:
    """Print the description of a data set as MLCommons Croissant (JSON-LD)."""
    from densekit.cli.site import site_settings
    from densekit.data.catalog import data_sets
    from densekit.data.croissant import croissant as describe
    from densekit.data.doctor.pins import read_pins
    from densekit.errors import UsageError

    known = {entry.name: entry for entry in data_sets()}
    if name not in known:
        raise UsageError(f"the catalog has no {name!r}; it has {', '.join(known)}")
    pins = read_pins(site_settings(data_dir=data_dir).roots.data)
    print_json(describe(known[name], pins.data_sets.get(name)))


@commands.command(epilog="Example: densekit data unpack downloads/my_set --to data/my_set")
def unpack(
    source: Annotated[
        Path, typer.Argument(help="A folder of parquet files, or one", show_default=False)
    ],
    to: Annotated[Path, typer.Option("--to", help="Where the file and images/ are put")],
    benchmark: Annotated[
        str | None,
        typer.Option(help="They are this benchmark's, and become its questions"),
    ] = None,
) -> None:
    """Unpack parquet files with image bytes into an annotation file and its images.

    Rows have `conversations` or `messages`, and an `image` or `images` of one. Names of speakers
    become human and gpt. What cannot be read is refused by file and row, all of it at once.
    """
    if benchmark is not None:
        from densekit.evaluate.hub_rows import unpack_benchmark

        file, questions, images = unpack_benchmark(benchmark, source, to)
        print(f"{file}: {counted(questions, 'question')}, {counted(images, 'image')}")
        return
    from densekit.data.parquet import unpack as write

    found = write(source, to)
    entries = counted(found.entries, "entry", "entries")
    print(f"{found.annotations}: {entries}, {counted(found.images, 'image')}")
    if found.elsewhere:
        print(
            f"{counted(found.elsewhere, 'image')} more {'is' if found.elsewhere == 1 else 'are'} "
            f"named by path, and not in these files: put them below {to / 'images'}"
        )


def _processes(asked: int | None) -> int:
    from densekit.data.doctor.pool import usual_workers

    return usual_workers() if asked is None else asked


def _print(found: "Examination", listed: Path | None) -> None:
    """Tables for people: composition, lengths, findings."""
    from densekit.cli.data_tables import print_examination

    print_examination(found, listed)
