"""Peak host RAM of merging LoRA adapters into a large model: `densekit export --merge-lora` streams
it, and may take the largest shard, the adapters and 1 GiB.

The model has the shapes of Yi-34B (hidden size 7168, 60 layers) and is sparse on the disk: its
shards are as long as the real ones and hold no bytes. `--layers 2` writes two shards of 2 GB each;
`--layers 60 --dry-run` plans all of them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from densekit.files.json_files import write_json
from densekit.files.safetensors_writer import Layout, write_safetensors
from densekit.files.weight_files import INDEX
from densekit.spec.connector import Connector
from densekit.spec.imported import Imported

HIDDEN, INTERMEDIATE, KEYS, VOCABULARY, RANK = 7168, 20480, 1024, 64000, 128
TOWER_LAYERS, TOWER_HIDDEN = 24, 1024
LARGEST = 4_900_000_000
"""Bytes of a shard of the published model, about."""
GIB = 1 << 30
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}


def language_model(layers: int) -> Iterator[tuple[str, Layout]]:
    """Every tensor of the language model, in the order of its files."""
    yield "model.embed_tokens.weight", _bf16(VOCABULARY, HIDDEN)
    for layer in range(layers):
        for name, shape in LINEAR.items():
            yield f"model.layers.{layer}.{name}.weight", _bf16(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{name}.weight", _bf16(HIDDEN)
    yield "model.norm.weight", _bf16(HIDDEN)
    yield "lm_head.weight", _bf16(VOCABULARY, HIDDEN)


def adapters(layers: int) -> Iterator[tuple[str, Layout]]:
    """Both halves of every adapter, as peft names them."""
    for layer in range(layers):
        for name, (rows, columns) in LINEAR.items():
            module = f"base_model.model.model.layers.{layer}.{name}"
            yield f"{module}.lora_A.weight", Layout(dtype="F32", shape=(RANK, columns))
            yield f"{module}.lora_B.weight", Layout(dtype="F32", shape=(rows, RANK))


def make_source(folder: Path, layers: int) -> Path:
    """An imported LoRA checkpoint with its base, as `densekit import` would leave it; its tower is
    left out, for no merge reads it.
    """
    base = folder / "base"
    base.mkdir(parents=True)
    write_json(base / "config.json", _config(layers))
    shards = _shards(dict(language_model(layers)), LARGEST if layers > 2 else LARGEST // 2)
    weight_map: dict[str, str] = {}
    for number, layouts in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        sparse(base / name, layouts)
        weight_map |= dict.fromkeys(layouts, name)
    write_json(base / INDEX, {"metadata": {}, "weight_map": weight_map})
    source = folder / "source"
    (source / "lora").mkdir(parents=True)
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 256, "bias": "none"}
    write_json(source / "lora" / "adapter_config.json", settings)
    sparse(source / "lora" / "adapter_model.safetensors", dict(adapters(layers)))
    width = 3 * TOWER_HIDDEN
    projector = {"0.weight": (HIDDEN, width), "0.bias": (HIDDEN,)}
    projector |= {"2.weight": (HIDDEN, HIDDEN), "2.bias": (HIDDEN,)}
    layouts = {name: Layout(dtype="F32", shape=shape) for name, shape in projector.items()}
    sparse(source / "connector.safetensors", layouts)
    hashed = {"x": {"sha256": "0" * 64, "bytes": 1}}
    half = TOWER_LAYERS // 2
    groups = (tuple(range(half)), tuple(range(half, TOWER_LAYERS)))
    record = Imported.model_validate(
        {
            "trains": "lora",
            "connector": Connector(kind="dci", groups=groups),
            "template": "chatml_direct",
            "image_aspect_ratio": "pad",
            "max_length": 2048,
            "vocabulary": VOCABULARY,
            "language_model": str(base),
            "vision_tower": str(base),
            "tokenizer": str(base),
            "base": None,
            "tower": None,
            "source": "sparse",
            "read": hashed,
            "files": hashed,
        }
    )
    write_json(source / "import.json", record.as_json())
    return source


def sparse(path: Path, layouts: Mapping[str, Layout]) -> None:
    """A safetensors file of zeros that takes no room on the disk."""

    class Enough(Exception):
        """The header is written."""

    seen = 0

    def stop_behind_header() -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            raise Enough

    try:
        write_safetensors(
            path,
            layouts,
            lambda name: _nothing(layouts[name]),
            metadata={"format": "pt"},
            proceed=stop_behind_header,
        )
    except Enough:
        with path.open("r+b") as file:
            header = 8 + int.from_bytes(file.read(8), "little")
            file.truncate(header + sum(layout.bytes for layout in layouts.values()))


def _nothing(layout: Layout) -> memoryview:
    import mmap

    return memoryview(mmap.mmap(-1, layout.bytes))


def _shards(layouts: Mapping[str, Layout], largest: int) -> list[dict[str, Layout]]:
    shards: list[dict[str, Layout]] = [{}]
    for name, layout in layouts.items():
        if shards[-1] and sum(each.bytes for each in shards[-1].values()) + layout.bytes > largest:
            shards.append({})
        shards[-1][name] = layout
    return shards


def _config(layers: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers,
        "num_attention_heads": HIDDEN // 128,
        "num_key_value_heads": KEYS // 128,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def _bf16(*shape: int) -> Layout:
    return Layout(dtype="BF16", shape=shape)


def merge(source: Path, to: Path, dtype: str | None) -> None:
    """Merge as an export does, file by file, and print the peak; what this process is started
    for.
    """
    from densekit.exchange.export.tensors import LanguageModel
    from densekit.exchange.shards import ShardWriter
    from densekit.exchange.source import open_source

    found = open_source(source)
    model = LanguageModel(found, merge=True, dtype=dtype)  # type: ignore[arg-type]
    files = model.files()
    to.mkdir()
    writer = ShardWriter(to, len(files))
    for part in files:
        with model.opened(part) as fetch:
            writer.add(part.layouts, fetch)
    writer.finish()
    print(json.dumps({"peak_gib": _peak() / GIB, "files": len(files)}))


def _peak() -> int:
    """VmHWM: the most that lay in RAM at once, files that were mapped included."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise SystemExit("/proc/self/status has no VmHWM")


def measure(folder: Path, layers: int, dtype: str | None) -> dict[str, float]:
    """The peak of one merge beside what it may be, GiB."""
    source = make_source(folder, layers)
    words = [sys.executable, __file__, "--merge", str(source), "--to", str(folder / "merged")]
    words += ["--dtype", dtype] if dtype else []
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    largest = max(path.stat().st_size for path in (folder / "base").glob("*.safetensors"))
    adapter = (source / "lora" / "adapter_model.safetensors").stat().st_size
    written = [path.stat().st_size for path in (folder / "merged").glob("*.safetensors")]
    return {
        **found,
        "largest_shard_gib": largest / GIB,
        "adapter_gib": adapter / GIB,
        "bound_gib": (largest + adapter) / GIB + 1,
        "smallest_written_gb": min(written) / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2, help="of the language model")
    parser.add_argument("--dtype", choices=["fp32", "bf16", "fp16"], help="of what is written")
    parser.add_argument("--dry-run", action="store_true", help="plan the export, write nothing")
    parser.add_argument("--folder", type=Path, help="for the files (default: a temporary one)")
    parser.add_argument("--merge", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.merge:
        merge(given.merge, given.to, given.dtype)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        if given.dry_run:
            from densekit.exchange.export.exporting import export_model
            from densekit.spec.exchange import ExportRequest

            source = make_source(Path(made), given.layers)
            request = ExportRequest(
                source=source,
                to=Path(made) / "to",
                format="densekit",
                merge_lora=True,
                dtype=given.dtype,
                dry_run=True,
            )
            print("\n".join(export_model(request)))
            print(json.dumps({"peak_gib": _peak() / GIB}))
            return
        print(json.dumps(measure(Path(made), given.layers, given.dtype)))


if __name__ == "__main__":
    main()
