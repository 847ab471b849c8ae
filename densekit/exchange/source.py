"""A trained model, whatever made it: the parts of a complete run or of an imported folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers.configuration_utils import PreTrainedConfig

from densekit.errors import DataError, UsageError
from densekit.exchange.adapter import Adapter, read_adapter
from densekit.exchange.official.importing import LORA, OFFICIAL
from densekit.exchange.tokenizer import chat_template_of, tokenizer_of
from densekit.exchange.weight_file import WeightFile, open_weights
from densekit.files.json_files import optional_object
from densekit.files.weight_files import BUFFERS, kind_of, read_weight_files
from densekit.model.config import DenseConnectorConfig, read_config
from densekit.model.weights import read_weights
from densekit.runs.complete import check_complete
from densekit.runs.layout import CONNECTOR_FILE, MATH_FILE, NEWLINE_FILE, RunDir
from densekit.spec.anyres import AnyRes
from densekit.spec.connector import Connector
from densekit.spec.conversation import ConversationSettings
from densekit.spec.imported import is_imported, read_imported
from densekit.spec.types import AspectRatio, Semantics, Trains

OWN = "language_model."
"""How densekit's own folder of a full model names the language model's tensors."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where each part of a trained model is, headers read and nothing else."""

    path: Path
    trains: Trains
    connector: Connector
    template: str
    semantics: Semantics
    """Of its conversations as ids (L1)."""
    image_aspect_ratio: AspectRatio
    anyres: AnyRes | None
    """Sizes and order of an image's tiles, where it has several."""
    max_length: int
    vocabulary: int
    """Tokens of the tokenizer: rows of the embedding behind them are never used."""
    config: PreTrainedConfig
    """Of the language model."""
    files: list[tuple[WeightFile, Mapping[str, str]]]
    """The language model's files: name in the model -> name in the file."""
    connector_file: Path
    newline_file: Path | None
    """Of a model whose rows of tiles end in the newline vector; None too where an official
    checkpoint does not hold it.
    """
    adapter: Adapter | None
    tower: Path
    tokenizer: Path
    official: Path | None
    """The official config.json and tower copy of an imported folder."""
    whole: Path | None
    """The folder of densekit's own model class, of a run that trained the whole model."""
    high_resolution_tower: Path | None = None
    """The second tower, where the connector mines."""
    tower_trained: bool = False
    """Whether `whole` holds another tower than `tower`."""

    @property
    def conversation(self) -> ConversationSettings:
        """How its prompts are made."""
        return ConversationSettings(
            template=self.template,
            semantics=self.semantics,
            image_aspect_ratio=self.image_aspect_ratio,
            anyres=self.anyres,
            max_length=self.max_length,
        )

    @property
    def shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """(dtype, shape) of every tensor of the language model."""
        return {
            name: file.shapes[inside]
            for file, names in self.files
            for name, inside in names.items()
        }


def open_source(path: Path) -> Source:
    """The trained model in a folder. Raises UsageError for a folder that is neither a run nor an
    import, DataError for a run that is not complete or a part that is missing.
    """
    if is_imported(path):
        return _imported(path)
    if (path / MATH_FILE).is_file():
        return _run(path)
    raise UsageError(f"{path} {_otherwise(path)}")


def read_newline(source: Source) -> Tensor:
    """The newline vector [H] of a model of AnyRes, fp32. Raises DataError where there is none."""
    if source.newline_file is None:
        raise DataError(
            f"{source.path}: rows of its tiles end in a newline vector (AnyRes), and it holds none "
            "(official folders of stage 1 leave it out): it can start a stage 2 as "
            "models.connector, and not be asked or exported"
        )
    newline = read_weights(source.newline_file).get("weight")
    if newline is None or newline.shape != (source.config.hidden_size,):
        raise DataError(
            f"{source.newline_file} does not hold `weight`, {source.config.hidden_size} numbers: "
            "put a copy of the file back"
        )
    return newline.float()


def _otherwise(path: Path) -> str:
    """What a folder is that cannot be opened, and what to do with it."""
    config = optional_object(path / "config.json")
    kind = config.get("model_type")
    if any(name.startswith("mm_") for name in config):
        return "is a folder of the official code: read it with `densekit import` first"
    if kind == DenseConnectorConfig.model_type:
        return "is an export in densekit's own format: `densekit chat` and `generate` read it"
    if kind == "llava":
        return (
            "is for stock transformers (LlavaForConditionalGeneration): use it there, and the run "
            "that it was exported from here"
        )
    if kind is not None:
        return (
            f"holds a model of type {kind} without a connector (text alone, or a tower): name a "
            "run, or a folder that `densekit import` made"
        )
    return (
        "is neither a run directory nor a folder that `densekit import` made; import an official "
        "checkpoint first"
    )


def _imported(path: Path) -> Source:
    record = read_imported(path)
    folder = path / record.language_model
    return Source(
        path=path,
        trains=record.trains,
        connector=record.connector,
        template=record.template,
        semantics="faithful",
        image_aspect_ratio=record.image_aspect_ratio,
        anyres=record.anyres,
        max_length=record.max_length,
        vocabulary=record.vocabulary,
        config=read_config(folder, "language model"),
        files=_files(folder, ""),
        connector_file=path / CONNECTOR_FILE,
        newline_file=newline if (newline := path / NEWLINE_FILE).is_file() else None,
        adapter=read_adapter(path / LORA) if record.trains == "lora" else None,
        tower=path / record.vision_tower,
        tokenizer=path / record.tokenizer,
        official=path / OFFICIAL,
        whole=None,
    )


def _run(path: Path) -> Source:
    run = RunDir(path)
    if not run.complete:
        raise DataError(f"{path} is {run.status.state}, not complete: train it to its end first")
    check_complete(run)
    math, roots = run.math.recipe, run.execution.roots
    full = math.trains == "full"
    folder = path / "model" if full else roots.resolve(math.models.language_model)
    tokenizer = folder if full else roots.resolve(math.models.tokenizer_folder)
    config: PreTrainedConfig
    if full:
        config = DenseConnectorConfig.from_pretrained(folder, local_files_only=True).text_config
    else:
        config = read_config(folder, "language model")
    return Source(
        path=path,
        trains=math.trains,
        connector=math.connector,
        template=chat_template_of(tokenizer)
        if math.data.template == "plain"
        else math.data.template,
        semantics=math.ledger["L1"],
        image_aspect_ratio=math.data.image_aspect_ratio,
        anyres=math.data.anyres,
        max_length=math.data.max_length,
        vocabulary=tokenizer_of(tokenizer).vocab_size,
        config=config,
        files=_files(folder, OWN if full else ""),
        connector_file=path / CONNECTOR_FILE,
        newline_file=newline if (newline := path / NEWLINE_FILE).is_file() else None,
        adapter=read_adapter(path / LORA) if math.lora else None,
        tower=roots.resolve(math.models.vision_tower),
        tokenizer=tokenizer,
        official=None,
        whole=folder if full else None,
        high_resolution_tower=roots.resolve_optional(math.models.high_resolution_tower),
        tower_trained=math.trains_tower,
    )


def _files(folder: Path, prefix: str) -> list[tuple[WeightFile, Mapping[str, str]]]:
    tensors, problems = read_weight_files(folder)
    if problems:
        raise DataError(f"language model: {'; '.join(problems)}")
    found: list[tuple[WeightFile, Mapping[str, str]]] = []
    for path in sorted({each.file for each in tensors.values()}):
        file = open_weights(path)
        names = {
            name.removeprefix(prefix): name
            for name in file.shapes
            if name.startswith(prefix) and kind_of(name, BUFFERS) is None
        }
        if names:
            found.append((file, names))
    return found
