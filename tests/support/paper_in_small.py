"""The paper's stage 1 and stage 2 in small, for a fetch: the same recipes with fewer layers and
samples, their models on a hub, their data sets in a catalog of a user's own.
"""

import io
import json
from pathlib import Path

import torch
import yaml
from safetensors.torch import load

from tests.support.files import write_json
from tests.support.hub_double import HubDouble
from tests.support.published import a_zip

LANGUAGE, TOWER = "lmsys/vicuna-7b-v1.5", "openai/clip-vit-large-patch14-336"
DATA_1, DATA_2 = "liuhaotian/LLaVA-Pretrain", "liuhaotian/LLaVA-Instruct-150K"
SMALLER = """
connector: {kind: dci, groups: [[0, 1, 2], [3, 4, 5]]}
data: {samples: null, max_length: 256}
global_batch_size: 16
reference: {gpus: 1, per_device_batch_size: 16, grad_accum_steps: 1}
"""


def publish(server: HubDouble, tiny: Path, folder: Path) -> dict[str, str]:
    """Put the tiny models and data below `tiny` on a hub and a server, and a catalog and two
    recipes into `folder`; the variables that a user sets for it.
    """
    for name, model in ((LANGUAGE, "language_model"), (TOWER, "vision_tower")):
        files = {path.name: path.read_bytes() for path in (tiny / model).iterdir()}
        # Vicuna and CLIP are published as pickles alone.
        stream = io.BytesIO()
        torch.save(load(files.pop("model.safetensors")), stream)
        server.repositories["model", name] = {**files, "pytorch_model.bin": stream.getvalue()}
    images = {path.name: path.read_bytes() for path in (tiny / "data" / "images").iterdir()}
    first = (tiny / "data" / "stage1.json").read_bytes()
    second = json.loads((tiny / "data" / "stage2.json").read_text(encoding="utf-8"))
    for entry in second:
        if "image" in entry:
            entry["image"] = f"coco/train2017/{entry['image']}"
    server.repositories["dataset", DATA_1] = {
        "blip_laion_cc_sbu_558k.json": first,
        "images.zip": a_zip(images),
    }
    server.repositories["dataset", DATA_2] = {
        "llava_v1_5_mix665k.json": json.dumps(second).encode()
    }
    server.files["/zips/train2017.zip"] = a_zip(
        {f"train2017/{name}": content for name, content in images.items()}
    )
    (folder / "catalog.yaml").write_text(yaml.safe_dump(_catalog(server.url)), encoding="utf-8")
    one = f"extends: vicuna7b_clip_stage1\ntitle: small, stage 1\n{SMALLER}"
    write_json(folder / "small_stage1.yaml", one)
    two = f"extends: vicuna7b_clip_stage2\ntitle: small, stage 2\nneeds: small_stage1\n{SMALLER}"
    write_json(folder / "small_stage2.yaml", two)
    return {
        "DENSEKIT_CATALOG": str(folder / "catalog.yaml"),
        "HF_ENDPOINT": server.url,
        "HF_HUB_CACHE": str(folder / "hub"),
    }


def _catalog(url: str) -> list[dict[str, object]]:
    shared = {
        "description": "scaled down",
        "url": f"{url}/about",
        "kind": "training",
        "license": {"text": "none", "source": "made"},
    }
    pretrain, instruct = "blip_laion_cc_sbu_558k.json", "llava_v1_5_mix665k.json"
    return [
        {
            **shared,
            "name": "LLaVA-Pretrain",
            "annotations": pretrain,
            "root": "LLaVA-Pretrain",
            "repository": DATA_1,
            "distribution": [
                {"name": pretrain, "source": "made"},
                {"name": "images.zip", "folder": "images", "source": "made"},
            ],
        },
        {
            **shared,
            "name": "LLaVA-Instruct-150K",
            "annotations": instruct,
            "root": ".",
            "repository": DATA_2,
            "distribution": [
                {"name": instruct, "folder": "LLaVA-Instruct-150K", "source": "made"},
                {
                    "name": "coco/train2017",
                    "contentUrl": f"{url}/zips/train2017.zip",
                    "folder": "coco/train2017",
                    "strip": 1,
                    "source": "made",
                },
            ],
        },
    ]
