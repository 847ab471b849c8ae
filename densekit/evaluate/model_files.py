"""What decides an answer on the model's side, hashed before anything is asked."""

from collections.abc import Iterator
from pathlib import Path

from densekit.errors import DataError, UsageError
from densekit.exchange.tokenizer import chat_template_of
from densekit.files.known_hash import known_sha256
from densekit.files.regular import open_regular
from densekit.runs.complete import check_complete
from densekit.runs.evaluations import EvaluatedModel
from densekit.runs.layout import CONNECTOR_FILE, MATH_FILE, NEWLINE_FILE, RunDir
from densekit.spec.conversion import read_conversion
from densekit.spec.imported import is_imported, read_imported

LORA = "lora"


def model_of(source: Path, cache: Path) -> EvaluatedModel:
    """The model of a complete run or of an imported checkpoint, every file of it hashed.

    Raises UsageError for a folder that is neither, DataError for a run that is not complete and for
    a file that cannot be read.
    """
    if is_imported(source):
        record = read_imported(source)
        folders = {
            "language_model": source / record.language_model,
            "vision_tower": source / record.vision_tower,
            "tokenizer": source / record.tokenizer,
        }
        template, math_sha256, anyres = record.template, None, record.anyres
    elif (source / MATH_FILE).is_file():
        run = RunDir(source)
        if not run.complete:
            raise DataError(
                f"{source} is {run.status.state}, not complete: train it to its end first"
            )
        check_complete(run)
        math, roots = run.math.recipe, run.execution.roots
        whole = math.trains == "full"
        folders = {
            "language_model": source / "model"
            if whole
            else roots.resolve(math.models.language_model),
            "vision_tower": roots.resolve(math.models.vision_tower),
            "tokenizer": source / "model" if whole else roots.resolve(math.models.tokenizer_folder),
        }
        if math.models.high_resolution_tower is not None:
            folders["high_resolution_tower"] = roots.resolve(math.models.high_resolution_tower)
        template = math.data.template
        if template == "plain":  # it was trained without a template of conversations
            template = chat_template_of(folders["tokenizer"])
        math_sha256, anyres = run.sha256, math.data.anyres
    else:
        raise UsageError(
            f"{source} is neither a run directory nor a folder that `densekit import` made; import "
            "an official checkpoint first"
        )
    if (source / LORA).is_dir():
        folders[LORA] = source / LORA
    files = {"connector": source / CONNECTOR_FILE}
    if (source / NEWLINE_FILE).is_file():
        files["newline"] = source / NEWLINE_FILE
    for part, folder in folders.items():
        if part == "tokenizer" and folder.resolve() == folders["language_model"].resolve():
            continue
        files |= {f"{part}: {path.name}": path for path in _files(folder)}
    hashed = {name: _sha256(path, cache) for name, path in sorted(files.items())}
    return EvaluatedModel(files=hashed, template=template, math=math_sha256, anyres=anyres)


def _files(folder: Path) -> Iterator[Path]:
    """Every file directly in a model's folder, without the pickles of a conversion: nothing reads
    them.
    """
    if not folder.is_dir():
        raise DataError(f"the model's folder {folder} is missing; restore it")
    conversion = read_conversion(folder)
    unread = set(conversion.originals) if conversion else set()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in unread and not path.name.startswith("."):
            yield path


def _sha256(path: Path, cache: Path) -> str:
    try:
        with open_regular(path) as file:
            return known_sha256(path, file, cache)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; restore it") from None
