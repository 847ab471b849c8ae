"""Which kind of official folder one is, by what is in it, and where its files are."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from densekit.errors import DataError, UsageError
from densekit.exchange.adapter import ADAPTER_CONFIG, Adapter, read_adapter
from densekit.exchange.official.settings import CONFIG, OfficialSettings, read_settings
from densekit.exchange.official.tensors import Stored, Where, model_files, sort_tensors
from densekit.exchange.weight_file import WeightFile, open_weights
from densekit.files.weight_files import few
from densekit.spec.types import Trains

PROJECTOR = "mm_projector.bin"
TRAINABLES = "non_lora_trainables.bin"
WHOLE = ("model*.safetensors", "pytorch_model*.bin")
"""Files of a whole model's weights."""
PROJECTOR_NAMES = ("0.bias", "0.weight", "2.bias", "2.weight")


@dataclass(frozen=True, kw_only=True)
class OfficialFolder:
    """An official checkpoint, its headers read and nothing else."""

    path: Path
    settings: OfficialSettings
    trains: Trains
    model: list[tuple[WeightFile, dict[str, Stored]]]
    """Files of the whole model's weights; [] where only a connector or an adapter was saved."""
    connector: tuple[WeightFile, dict[str, Stored]] | None
    """The connector's own file; None where it is in the model's."""
    adapter: Adapter | None
    dropped: Counter[str]
    notes: tuple[str, ...]

    def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors of one part, by name."""
        files = [*self.model, *([self.connector] if self.connector else [])]
        return {
            each.name: each.shape
            for _, stored in files
            for each in stored.values()
            if each.part == part
        }


def open_official(folder: Path, connector: Path | None = None) -> OfficialFolder:
    """The checkpoint in a folder; `connector` names its connector's file where the folder has none.

    Raises UsageError where there is no folder, DataError for anything but a checkpoint that can be
    imported, with what it is or lacks.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: give one that the official code wrote")
    folder = _inside(folder)
    settings = read_settings(folder)
    adapter = read_adapter(folder) if (folder / ADAPTER_CONFIG).is_file() else None
    beside = [path.name for pattern in WHOLE for path in sorted(folder.glob(pattern))]
    if adapter is not None and beside:
        raise DataError(
            f"{folder} holds a LoRA adapter and weights of a whole model ({few(beside)}): which "
            "one counts is not said; remove the one that is not meant"
        )
    dropped: Counter[str] = Counter()
    model = []
    for file in model_files(folder) if adapter is None else []:
        stored, anew = sort_tensors(file)
        model.append((file, stored))
        dropped += anew
    _check_once(model)
    notes = list(settings.notes)
    within = any(each.part == "connector" for _, stored in model for each in stored.values())
    path = None if within and connector is None else connector or _connector_file(folder, adapter)
    if path != folder / PROJECTOR and (folder / PROJECTOR).is_file():
        where = "the model's own files hold" if within else f"{path} holds"
        notes.append(f"{PROJECTOR} was not read: {where} the connector")
    if within and connector is not None:
        raise UsageError(
            f"--connector {connector}: {folder} holds a connector of its own; omit --connector"
        )
    if path is None and not within:
        raise DataError(_without_connector(folder, adapter, bool(model)))
    found = OfficialFolder(
        path=folder,
        settings=settings,
        trains="lora" if adapter else "full" if model else "connector",
        model=model,
        connector=read_connector(path, besides=("newline",)) if path else None,
        adapter=adapter,
        dropped=dropped,
        notes=tuple(notes),
    )
    _check_names(found.shapes("connector"), path or folder)
    _check_newline(found)
    return found


def _check_once(model: list[tuple[WeightFile, dict[str, Stored]]]) -> None:
    """Raise DataError for a tensor that is there twice, in two files or under two names."""
    places: dict[tuple[str, str], list[str]] = {}
    for file, stored in model:
        for name, each in stored.items():
            places.setdefault((each.part, each.name), []).append(f"{name} in {file.path.name}")
    if twice := [" and ".join(names) for names in places.values() if len(names) > 1]:
        raise DataError(
            f"{model[0][0].path.parent} holds {few(twice)}: which one counts is not said; download "
            "the folder again"
        )


def _inside(folder: Path) -> Path:
    """The folder that holds config.json: where the official output folder is itself called
    checkpoint-*, that one lies beside mm_projector/.
    """
    if (folder / CONFIG).is_file():
        return folder
    inside = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    if len(inside) == 1 and (folder / "mm_projector" / f"{inside[0].name}.bin").is_file():
        return inside[0]
    names = few([path.name for path in inside])
    hint = f"; name one of the folders in it: {names}" if inside else ""
    raise DataError(f"{folder} holds no {CONFIG}: it is no checkpoint of the official code{hint}")


def _connector_file(folder: Path, adapter: Adapter | None) -> Path | None:
    beside = folder.parent / "mm_projector" / f"{folder.name}.bin"
    names = (TRAINABLES,) if adapter else (PROJECTOR,)
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found and adapter is None and beside.is_file():
        return beside
    return found[0] if found else None


def _without_connector(folder: Path, adapter: Adapter | None, model: bool) -> str:
    if adapter is not None:
        return (
            f"{folder} holds a LoRA adapter and no {TRAINABLES}, as the checkpoint-N folders of a "
            "LoRA run do: its connector is not there; give the connector's file with --connector"
        )
    if model:
        return (
            f"the weights of {folder} hold no mm_projector and there is no {PROJECTOR}: give the "
            "connector's file with --connector"
        )
    steps = sorted(path.parent.name for path in folder.glob(f"checkpoint-*/{PROJECTOR}"))
    if steps:
        return f"{folder} holds no {PROJECTOR} of its own; name one of {few(steps)} in it"
    return (
        f"{folder} holds neither weights of a model nor {PROJECTOR} nor a LoRA adapter: finish the "
        "download, or give the connector's file with --connector"
    )


def read_connector(
    path: Path, *, besides: tuple[Where, ...] = ()
) -> tuple[WeightFile, dict[str, Stored]]:
    """A connector's file, and each tensor's place; names without `mm_projector.` are taken as they
    are. `besides`: parts that may be in it too.

    Raises UsageError where there is none, DataError for one that holds more or less than a
    two-layer projector.
    """
    if not path.is_file():
        raise UsageError(f"connector {path} is not a file")
    file = open_weights(path)
    if set(file.shapes) == set(PROJECTOR_NAMES):
        return file, {
            name: Stored(part="connector", name=name, dtype=dtype, shape=shape)
            for name, (dtype, shape) in file.shapes.items()
        }
    stored, _ = sort_tensors(file)
    if others := [n for n, each in stored.items() if each.part not in ("connector", *besides)]:
        raise DataError(
            f"{path} holds {few(others)} beside the connector: other parts were trained too, and "
            "a connector alone would not be that model"
        )
    _check_names((e.name for e in stored.values() if e.part == "connector"), path)
    return file, stored


def _check_newline(found: OfficialFolder) -> None:
    """Raise DataError unless the newline vector is there exactly where the settings have one; a
    stage 1 does not save it.
    """
    anyres = found.settings.anyres
    wanted = anyres is not None and anyres.has_newline
    if bool(found.shapes("newline")) == wanted or (wanted and found.trains == "connector"):
        return
    said = (
        f"{found.settings.place} says image_aspect_ratio {found.settings.image_aspect_ratio}"
        f"{f' and mm_patch_merge_type {anyres.merge}' if anyres else ''}"
    )
    if wanted:
        raise DataError(
            f"{said}, and the weights lack image_newline, in which rows of tiles end: finish the "
            "download"
        )
    raise DataError(
        f"{said}, and the weights hold image_newline, which an AnyRes model with "
        "mm_patch_merge_type spatial_unpad has: put the config.json of these weights there"
    )


def _check_names(names: Iterable[str], path: Path) -> None:
    found = sorted(names)
    if found != sorted(PROJECTOR_NAMES):
        raise DataError(
            f"{path}: the connector's tensors are {few(found) or 'missing'}; a two-layer projector "
            f"(mlp2x_gelu) has {', '.join(PROJECTOR_NAMES)}"
        )
