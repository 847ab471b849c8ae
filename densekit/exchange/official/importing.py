"""An official checkpoint into a folder of densekit's: `import_folder`.

    connector.safetensors      the projector, in the type it was saved in
    newline.safetensors        of AnyRes: the vector that rows of tiles end in
    language_model/            of a full checkpoint: transformers' format, with its tokenizer
    lora/                      of a LoRA checkpoint: the adapter, as peft reads it
    vision_tower/              the copy in the checkpoint, where the named tower has no weights
    official/                  config.json as it was, and the tower's copy, for the way back
    import.json                what was read and written, by hash (spec/imported.py)

It runs in a process of the trainer's environment, which launchers start. Weights go file by file:
host RAM holds one file of them at most. import.json appears last, by a rename.
"""

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from densekit.errors import DataError, UsageError
from densekit.exchange.adapter import ADAPTER_CONFIG
from densekit.exchange.new_folder import new_folder
from densekit.exchange.official.folder import OfficialFolder, open_official
from densekit.exchange.official.parts import (
    check_base,
    check_language_model,
    find_model,
    tower_connector,
)
from densekit.exchange.official.settings import CONFIG
from densekit.exchange.official.tensors import EMBEDDING, HEAD, Stored, Where
from densekit.exchange.official.tower import Tower, find_tower
from densekit.exchange.shards import ShardWriter
from densekit.exchange.tokenizer import chat_template_of, tokenizer_of
from densekit.exchange.weight_file import check_finite
from densekit.files.hashing import file_sha256, files_sha256
from densekit.files.json_files import write_json
from densekit.files.safetensors_writer import Layout
from densekit.files.weight_files import read_weight_files
from densekit.model.tensor_files import write_tensors
from densekit.runs.layout import CONNECTOR_FILE, NEWLINE_FILE
from densekit.spec.imported import IMPORT_FILE, Imported, ImportRequest, ReadFolder
from densekit.spec.saved_file import SavedFile
from densekit.spec.templates import template_names
from densekit.text.tokenizers.base import TOKENIZER_FILES

LANGUAGE_MODEL: Where = "language_model"
LORA = "lora"
OFFICIAL = "official"
TOWER_COPY = "vision_tower.safetensors"
Say = Callable[[str], None]


def import_folder(request: ImportRequest, *, say: Say = lambda line: None) -> Imported:
    """Import one checkpoint. `say` is given a line about what was done.

    Raises UsageError for folders that are not there or not empty, DataError for a checkpoint that
    cannot be imported. Nothing half-written stays.
    """
    if request.template is not None and request.template not in template_names():
        raise UsageError(
            f"--template {request.template} is not one of {', '.join(template_names())}"
        )
    found = open_official(request.folder, request.connector)
    tower = find_tower(found, request.tower, request.search)
    base = None
    if found.trains != "full":
        named = (found.adapter.base if found.adapter else None) or found.settings.base
        base = find_model(
            request.base, named, request.search, what="language model", option="--base"
        )
        check_base(found, base)
    elif request.base is not None:
        raise UsageError(f"--base: {request.folder} holds a whole language model; omit --base")
    with new_folder(request.to) as stage:
        record = _Import(found, request, tower, base, stage, say).run()
        write_json(stage / IMPORT_FILE, record.as_json())
    return record


class _Import:
    """One import on its way."""

    def __init__(
        self,
        found: OfficialFolder,
        request: ImportRequest,
        tower: Tower,
        base: Path | None,
        stage: Path,
        say: Say,
    ) -> None:
        self.found, self.request, self.tower, self.base = found, request, tower, base
        self.stage, self.say = stage, say
        self.notes = [*found.notes, *tower.notes]
        self.read: dict[str, SavedFile] = {}

    def run(self) -> Imported:
        """Write every part, then say what was made."""
        found, settings = self.found, self.found.settings
        connector, _ = tower_connector(found, self.tower.folder)
        self._note_read(found.path / CONFIG)
        (self.stage / OFFICIAL).mkdir()
        shutil.copyfile(found.path / CONFIG, self.stage / OFFICIAL / CONFIG)
        if found.trains == "full":
            self._language_model()
        self._connector()
        self._newline()
        if found.adapter is not None:
            self._adapter()
        if self.tower.from_copy:
            self.tower.write(found, self.stage / "vision_tower")
        tokenizer = self.base or found.path
        vocabulary = tokenizer_of(tokenizer).vocab_size
        self._check_vocabulary(vocabulary)
        inside = LANGUAGE_MODEL if self.base is None else str(self.base.resolve())
        return Imported(
            trains=found.trains,
            connector=connector,
            template=self.request.template or chat_template_of(tokenizer),
            image_aspect_ratio=settings.image_aspect_ratio,
            anyres=settings.anyres,
            max_length=settings.max_length,
            vocabulary=vocabulary,
            language_model=inside,
            vision_tower="vision_tower"
            if self.tower.from_copy
            else str(self.tower.folder.resolve()),
            tokenizer=inside,
            base=_read_folder(self.base),
            tower=None if self.tower.from_copy else _read_folder(self.tower.folder),
            source=found.path.resolve().name,
            read=self.read,
            files=_written(self.stage),
            left_out=dict(found.dropped),
            notes=tuple(self.notes),
        )

    def _language_model(self) -> None:
        """The language model in transformers' format, and the tower's copy, file by file."""
        folder = self.stage / LANGUAGE_MODEL
        folder.mkdir()
        types = {
            each.dtype
            for _, stored in self.found.model
            for each in stored.values()
            if each.part == LANGUAGE_MODEL
        }
        names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
        stated = {"torch_dtype": names[types.pop()]} if len(types) == 1 else {}
        write_json(folder / CONFIG, {**self.found.settings.language_model, **stated})
        check_language_model(self.found, folder)
        self._check_tied()
        for name in (*TOKENIZER_FILES, "generation_config.json"):
            if (self.found.path / name).is_file():
                shutil.copyfile(self.found.path / name, folder / name)
        copy: dict[str, Tensor] = {}
        writer = ShardWriter(folder, _count_with(self.found, LANGUAGE_MODEL))
        for file, stored in self.found.model:
            self._note_read(file.path)
            parts = _by_part(stored)
            layouts = {
                stored[name].name: Layout(dtype=stored[name].dtype, shape=stored[name].shape)
                for name in parts[LANGUAGE_MODEL]
            }
            inside = {stored[name].name: name for name in parts[LANGUAGE_MODEL]}
            with file.opened() as fetch:
                writer.add(layouts, partial(_finite, fetch, inside, file.path))
                copy |= {stored[name].name: fetch(name) for name in parts["vision_tower"]}
            self.say(f"{file.path.name}: {len(stored)} tensors")
        writer.finish()
        if copy:
            write_tensors(copy, self.stage / OFFICIAL / TOWER_COPY, metadata={"format": "pt"})
            if not self.tower.from_copy:
                self.notes += self.tower.compare(copy)

    def _check_tied(self) -> None:
        """Refuse an output embedding of its own where config.json says that it is the input's."""
        if self.found.settings.language_model.get("tie_word_embeddings") is not True:
            return
        both = {
            stored[name].name: value
            for file, stored in self.found.model
            for name, value in file.read(
                name for name, each in stored.items() if each.name in (EMBEDDING, HEAD)
            ).items()
        }
        if len(both) == 2 and not torch.equal(both[EMBEDDING], both[HEAD]):
            raise DataError(
                f"{self.found.settings.place} says tie_word_embeddings, and {HEAD} is not "
                f"{EMBEDDING}: which one counts is not said; put the config.json of these weights "
                "there"
            )

    def _connector(self) -> None:
        tensors = self._part("connector")
        write_tensors(tensors, self.stage / CONNECTOR_FILE, metadata={"format": "pt"})

    def _newline(self) -> None:
        anyres = self.found.settings.anyres
        if anyres is None or not anyres.has_newline:
            return
        if not (found := [*self._part("newline").values()]):
            self.notes.append(
                "the newline vector, in which rows of tiles end, is not in the checkpoint, as in "
                "all of stage 1: its connector starts a stage 2, and it cannot be asked"
            )
            return
        write_tensors({"weight": found[0]}, self.stage / NEWLINE_FILE, metadata={"format": "pt"})

    def _part(self, part: Where) -> dict[str, Tensor]:
        """The tensors of a part, by their names in it."""
        files = [self.found.connector] if self.found.connector else self.found.model
        tensors: dict[str, Tensor] = {}
        for file, stored in files:
            names = _by_part(stored)[part]
            read = file.read(names)
            check_finite(read, file.path)
            tensors |= {stored[name].name: value for name, value in read.items()}
            if names:
                self._note_read(file.path)
        return tensors

    def _adapter(self) -> None:
        adapter = self.found.adapter
        assert adapter is not None and self.base is not None
        folder = self.stage / LORA
        folder.mkdir()
        shutil.copyfile(adapter.folder / ADAPTER_CONFIG, folder / ADAPTER_CONFIG)
        self._note_read(adapter.folder / ADAPTER_CONFIG)
        self._note_read(adapter.file.path)
        tensors = adapter.file.read(adapter.file.shapes)
        check_finite(tensors, adapter.file.path)
        write_tensors(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        if adapter.base and Path(adapter.base).name != self.base.name:
            self.notes.append(
                f"the adapter was trained on {adapter.base}, and the base is {self.base.name}: "
                "the same model only if it was renamed"
            )

    def _check_vocabulary(self, vocabulary: int) -> None:
        """The official loader cuts the embedding to the tokenizer, or draws rows that it lacks."""
        rows = self._rows()
        if rows < vocabulary:
            raise DataError(
                f"the tokenizer has {vocabulary} tokens and the embedding {rows} rows: the rows of "
                "the last tokens would have to be drawn; put the checkpoint's own tokenizer there"
            )
        if rows > vocabulary:
            self.notes.append(
                f"the embedding has {rows} rows and the tokenizer {vocabulary} tokens: the rows "
                "behind them are kept in the files and left out when the model is loaded, as the "
                "official loader does"
            )

    def _rows(self) -> int:
        tensors, _ = read_weight_files(self.base or self.stage / LANGUAGE_MODEL)
        return tensors[EMBEDDING].entry.shape[0]

    def _note_read(self, path: Path) -> None:
        if path.name not in self.read:
            self.read[path.name] = _saved(path)


def _finite(
    fetch: Callable[[str], Tensor], inside: Mapping[str, str], path: Path, name: str
) -> Tensor:
    """A tensor of the language model, by its name there."""
    tensor = fetch(inside[name])
    check_finite({inside[name]: tensor}, path)
    return tensor


def _by_part(stored: Mapping[str, Stored]) -> dict[Where, list[str]]:
    found: dict[Where, list[str]] = {part: [] for part in get_args(Where)}
    for name, each in stored.items():
        found[each.part].append(name)
    return found


def _count_with(found: OfficialFolder, part: str) -> int:
    """Files that hold a tensor of a part."""
    return sum(any(each.part == part for each in stored.values()) for _, stored in found.model)


def _saved(path: Path) -> SavedFile:
    return SavedFile(sha256=file_sha256(path), bytes=path.stat().st_size)


def _read_folder(folder: Path | None) -> ReadFolder | None:
    if folder is None:
        return None
    return ReadFolder(folder=str(folder.resolve()), files=files_sha256(folder))


def _written(stage: Path) -> dict[str, SavedFile]:
    paths = sorted(path for path in stage.rglob("*") if path.is_file())
    return {path.relative_to(stage).as_posix(): _saved(path) for path in paths}
