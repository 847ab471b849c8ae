"""The models that a checkpoint names and does not hold: found here, and compared with it."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from densekit.errors import DataError, UsageError, in_a_line
from densekit.exchange.official.folder import OfficialFolder
from densekit.exchange.official.settings import CONFIG, MAX_SHOWN, official_connector
from densekit.exchange.official.tensors import EMBEDDING
from densekit.files.weight_files import few, read_weight_files
from densekit.model.config import read_config
from densekit.model.towers import vision_config_of
from densekit.spec.connector import Connector
from densekit.spec.vision import check_anyres

LAYERS = "model.layers."
"""How the names of tensors of a language model's layers begin; their number follows."""


def find_model(
    given: Path | None, named: str | None, search: Sequence[Path], *, what: str, option: str
) -> Path:
    """The folder of a model: the one that is given, else the one that the checkpoint names, as a
    path or below a folder in `search` by its whole name or the last part of it.

    Raises UsageError for a given folder that is not there, DataError where nothing is found.
    """
    if given is not None:
        if not given.is_dir():
            raise UsageError(f"{option} {given} is not a folder: name the folder of a model")
        return given
    if named is None:
        raise DataError(f"the checkpoint does not say which {what} it needs; give it with {option}")
    path = Path(named)
    for candidate in (path, *(root / name for root in search for name in (path, path.name))):
        with suppress(OSError):  # a name that is too long for a path
            if candidate.is_dir():
                return candidate
    where = f" or below {few([str(root) for root in search])}" if search else ""
    shown = " ".join(named.split())[:MAX_SHOWN]
    raise DataError(
        f"the checkpoint needs the {what} {shown}, which is not there{where}; give its folder with "
        f"{option}"
    )


def tower_connector(found: OfficialFolder, tower: Path) -> tuple[Connector, Any]:
    """The connector on this tower, and the tower's configuration. Raises DataError where the
    checkpoint was trained on another tower.
    """
    settings = found.settings
    try:
        vision = vision_config_of(read_config(tower, "vision tower"))
    except ValueError as error:
        raise DataError(f"{tower}: {error}") from None
    is_clip = vision.model_type == "clip_vision_model"
    if is_clip == settings.names_siglip:
        names, is_one = ("SigLIP", "CLIP") if settings.names_siglip else ("CLIP", "SigLIP")
        raise DataError(
            f"{settings.place}: mm_vision_tower {settings.tower} is a {names} tower to the "
            f"official code, which goes by that name, and {tower} holds a {is_one} tower: give the "
            "tower that the checkpoint was trained on with --tower"
        )
    connector = official_connector(settings.kind, vision.num_hidden_layers, is_clip)
    width = connector.width(vision.hidden_size)
    shapes = found.shapes("connector")
    hidden = shapes["2.weight"][0]
    wanted = {
        "0.weight": (hidden, width),
        "0.bias": (hidden,),
        "2.weight": (hidden, hidden),
        "2.bias": (hidden,),
    }
    if wrong := [name for name, shape in wanted.items() if shapes[name] != shape]:
        raise DataError(
            f"the connector's {wrong[0]} is {_x(shapes[wrong[0]])}, and connector "
            f"{settings.kind} on {tower} (hidden size {vision.hidden_size}) needs "
            f"{_x(wanted[wrong[0]])}: give the tower that the checkpoint was trained on with "
            "--tower, or the connector's own file with --connector"
        )
    try:
        check_anyres(settings.anyres, connector, vision.image_size)
    except ValueError as error:
        raise DataError(f"{settings.place}: image_grid_pinpoints on {tower}: {error}") from None
    newline = found.shapes("newline").get("image_newline")
    if newline is not None and newline != (hidden,):
        raise DataError(
            f"image_newline of {settings.place} is {_x(newline)}, and the connector makes vectors "
            f"of {hidden}: the weights are not of one model"
        )
    if connector.last_layer(vision.num_hidden_layers) > vision.num_hidden_layers:
        raise DataError(f"{tower} has {vision.num_hidden_layers} layers, too few for the connector")
    return connector, vision


def check_base(found: OfficialFolder, base: Path) -> None:
    """Raise DataError unless the language model in `base` is one that this connector, and this
    adapter, fit.
    """
    tensors, problems = read_weight_files(base)
    if problems:
        raise DataError(f"language model: {'; '.join(problems)}")
    shapes = {name: tensor.entry.shape for name, tensor in tensors.items()}
    config = read_config(base, "language model")
    if EMBEDDING not in shapes:
        raise DataError(
            f"{base} (model type {config.model_type}) has no {EMBEDDING}: it is no language model "
            "of Llama's kind; give the one that the checkpoint was trained on with --base"
        )
    hidden = found.shapes("connector")["2.weight"][0]
    if config.hidden_size != hidden:
        raise DataError(
            f"{base} has hidden size {config.hidden_size}, and the checkpoint's connector makes "
            f"{hidden}: give the language model that it was trained on with --base"
        )
    if found.adapter is not None:
        found.adapter.check(shapes, base)


def check_language_model(found: OfficialFolder, config_folder: Path) -> None:
    """Raise DataError unless the checkpoint holds exactly the tensors of the language model that
    its config.json describes.
    """
    place = found.path / CONFIG
    shapes = found.shapes("language_model")
    blocks = len({name.split(".")[2] for name in shapes if name.startswith(LAYERS)})
    stated = found.settings.language_model.get("num_hidden_layers")
    if blocks != stated:  # before the model is built: a number may be anything
        raise DataError(
            f"{place} states num_hidden_layers {str(stated)[:MAX_SHOWN]}, and the weights have "
            f"{blocks} layers; finish the download, or put the config.json of these weights there"
        )
    try:
        config = read_config(config_folder, "language model of the checkpoint")
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except DataError as error:
        raise DataError(str(error).replace(str(config_folder / CONFIG), str(place))) from None
    except Exception as error:  # whatever a class of transformers raises for its configuration
        raise DataError(
            f"{place} makes no language model ({in_a_line(error)}): put the published file back"
        ) from None
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    tied = getattr(config, "tie_word_embeddings", False)
    missing = [
        name
        for name in sorted(expected.keys() - shapes.keys())
        if not (tied and name == "lm_head.weight")
    ]
    unexpected = sorted(shapes.keys() - expected.keys())
    other = sorted(n for n in shapes.keys() & expected.keys() if shapes[n] != expected[n])
    said = [
        f"{len(names)} {fault} ({few(names)})"
        for fault, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", other),
        )
        if names
    ]
    if said:
        raise DataError(
            f"{found.path}: the language model's tensors are not those of its config.json: "
            f"{', '.join(said)}; finish the download, or put the config.json of these weights there"
        )


def _x(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
