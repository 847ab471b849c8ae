"""What the publishers of a paper's recipe have, scaled down: models and data sets on a hub,
archives on a server, and the catalog that says so.
"""

import io
import json
import random
import zipfile
from pathlib import Path

from densekit.data.catalog import DataSet, load_catalog
from tests.support.files import write_json
from tests.support.hub_double import HubDouble

LANGUAGE, TOWER = "lab/language-7b", "lab/tower-336"


def a_zip(files: dict[str, bytes]) -> bytes:
    """A zip of files by name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def noise(size: int, seed: int) -> bytes:
    """Bytes that no packing shortens."""
    return random.Random(seed).randbytes(size)


def small_world(server: HubDouble, folder: Path, *, image_bytes: int = 3000) -> DataSet:
    """Fill a double with a model of two shards, and a data set of an annotation file and an archive
    on the hub and two archives elsewhere; its catalog entry.
    """
    import numpy as np
    from safetensors.numpy import save

    shards = {
        f"model-0000{number}-of-00002.safetensors": save(
            {f"layer{number}.weight": np.full((64, 64), number, dtype=np.float32)}
        )
        for number in (1, 2)
    }
    weight_map = {f"layer{number}.weight": name for number, name in enumerate(shards, start=1)}
    index = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    server.repositories["model", LANGUAGE] = {
        **shards,
        "model.safetensors.index.json": index,
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.model": noise(2000, 1),
        "pytorch_model.bin": b"a pickle",
        "pytorch_model.bin.index.json": b"{}",
        "modeling.py": b"raise SystemExit",
        "original/consolidated.00.pth": b"not needed",
        "README.md": b"hello",
    }
    images = {f"{number:05}/{number}.jpg": noise(image_bytes, number) for number in range(12)}
    server.repositories["dataset", "lab/captions"] = {
        "captions.json": b'[{"id": "1"}]' + b" " * 2000,
        "images.zip": a_zip(images),
        "metadata.json": b"{}",
    }
    server.files["/zips/train2017.zip"] = a_zip(
        {f"train2017/{number}.jpg": noise(image_bytes, 100 + number) for number in range(9)}
    )
    server.files["/vg/images.zip"] = a_zip({"VG_100K/1.jpg": noise(image_bytes, 200)})
    entry = {
        "name": "captions",
        "description": "scaled down",
        "url": "https://example.org/captions",
        "kind": "training",
        "license": {"text": "none", "source": "made"},
        "annotations": "captions.json",
        "root": "captions",
        "repository": "lab/captions",
        "distribution": [
            {"name": "captions.json", "source": "made"},
            {"name": "images.zip", "folder": "images", "source": "made"},
            {
                "name": "coco/train2017",
                "contentUrl": f"{server.url}/zips/train2017.zip",
                "folder": "coco/train2017",
                "strip": 1,
                "fileCount": 9,
                "source": "made",
            },
            {
                "name": "vg",
                "contentUrl": f"{server.url}/vg/images.zip",
                "folder": "vg",
                "source": "made",
            },
        ],
    }
    write_json(folder / "catalog.yaml", [entry])
    return load_catalog(folder / "catalog.yaml")[0]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but records and locks, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".fetched" not in path.parts
    }
