"""`densekit convert`: which launcher converts the weights of a folder, and what is said of it."""

from pathlib import Path

from pydantic import ValidationError

from densekit.errors import UsageError
from densekit.launch.launchers.base import Launcher
from densekit.launch.launchers.options import LauncherOptions
from densekit.launch.launchers.registry import DEFAULT, DEFAULT_ON_GPU_HOST
from densekit.launch.launchers.trainer_command import missing_packages
from densekit.launch.selection import configured
from densekit.spec.conversion import ConversionReport, ConversionRequest
from densekit.spec.execution import Execution
from densekit.spec.site import Site


def converter(name: str | None, options: LauncherOptions, site: Site) -> Launcher:
    """The launcher that was asked for; else this Python where it has the trainer's packages, and a
    container where it has not. Raises UsageError for options that the launcher does not take.
    """
    here = DEFAULT if not missing_packages() and not options.given() else DEFAULT_ON_GPU_HOST
    return configured(name or here, options, site)


def convert(folder: Path, to: Path | None, launcher: Launcher) -> list[str]:
    """Convert the pickled weights of `folder`; returns what was done, in lines. Raises UsageError
    or DataError as `exchange/convert.py` does.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: name the folder of a model")
    # A container sees what is mounted, and no symbolic link on the way there.
    request = ConversionRequest(folder=folder.resolve(), to=to.resolve() if to else None)
    report = launcher.convert(request, Execution())
    return _lines(report, to or folder)


def _lines(report: ConversionReport, target: Path) -> list[str]:
    conversion = report.conversion
    originals, size = len(conversion.originals), sum(f.bytes for f in conversion.files.values())
    lines = [
        f"{target}: {'was converted before, ' if report.already else ''}{conversion.tensors} "
        f"tensors of {originals} pickle{'s' * (originals != 1)} in {len(conversion.files)} "
        f"file{'s' * (len(conversion.files) != 1)}, {size / 1e9:.2f} GB"
    ]
    lines += [f"{name} is kept once, as {other}" for name, other in conversion.tied.items()]
    lines += [
        f"{name} holds no weights in {', '.join(keys[:5])}, which were left out"
        for name, keys in conversion.left_out.items()
    ]
    return lines


def read_request(text: str) -> ConversionRequest:
    """The argument of `densekit convert-folder`. Raises UsageError for anything else."""
    try:
        return ConversionRequest.model_validate_json(text)
    except ValidationError:
        raise UsageError("`densekit convert-folder` takes a folder as JSON") from None
