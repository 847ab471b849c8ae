"""What one worker reads in a second: images of the real size, and conversations of 2,000 tokens.

Images: JPEGs of 640 x 480 pixels and some 160 kB, drawn once. densekit's own path (read, hash,
decode, pad or square, resize, crop, to [3, size, size]) in turns with the floor: Pillow's decoder,
the same pad, the same resize and nothing else, through the same libraries. Text, with --tokenizer:
densekit's encoder as training uses it, in turns with a single pass of the tokenizer over the
rendered text. All in CPU seconds of one thread (process_time), the best of --repeat rounds: what
else runs on the machine only adds.

At the end the workers a host of 8 GPUs needs at twice the published speed of stage 1, with the
arithmetic: 558,128 samples in 3.5 hours on 8 A100 (README of LLaVA).
"""

import argparse
import io
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from densekit.data.pixels import ImageProcessor, read_image
from densekit.text.encode import SampleEncoder
from densekit.text.tokenizers.base import load_tokenizer

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
TOWERS: dict[str, tuple[Any, int]] = {
    "CLIP-336": ("shortest_edge", 336),
    "SigLIP-384": ("squash", 384),
}
SAMPLES, HOURS, GPUS, FASTER = 558_128, 3.5, 8, 2
WORDS = (
    "the photograph shows a wooden table near the window with bright morning light and several "
    "people who are standing behind it while a small dog sleeps on the carpet"
)


def make_images(folder: Path, count: int) -> list[Path]:
    """Smooth shapes with grain, as large as photographs are after compression."""
    draw = np.random.default_rng(0)
    paths = []
    for number in range(count):
        rough = draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(rough).resize((640, 480), Image.Resampling.BICUBIC))
        grain = draw.normal(0, 14, smooth.shape)
        pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def floor(path: Path, processor: ImageProcessor) -> Image.Image:
    """Decode, pad, resize: what no reader can leave out."""
    image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
    size = processor.size
    if processor.aspect_ratio == "pad":
        edge = max(image.size)
        square = Image.new("RGB", (edge, edge), (122, 116, 104))
        square.paste(image, ((edge - image.width) // 2, (edge - image.height) // 2))
        image = square
    if processor.resize == "squash":
        return image.resize((size, size), Image.Resampling.BICUBIC)
    short = min(image.size)
    shape = (size * image.width // short, size * image.height // short)
    return image.resize(shape, Image.Resampling.BICUBIC)


def in_turns(repeat: int, **sides: Callable[[], int]) -> dict[str, float]:
    """CPU seconds per item of each, the best of as many rounds; `sides` return their items."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeat):
        for name, side in sides.items():
            begun = time.process_time()
            items = side()
            seconds[name].append((time.process_time() - begun) / items)
    return {name: min(each) for name, each in seconds.items()}


def images(count: int, repeat: int) -> dict[str, Any]:
    """Seconds an image by tower and aspect ratio."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = make_images(Path(folder), count)
        for tower, (resize, size) in TOWERS.items():
            for aspect_ratio in ("square", "pad"):
                processor = ImageProcessor(
                    resize=resize, size=size, mean=MEAN, std=STD, aspect_ratio=aspect_ratio
                )

                def ours(processor: ImageProcessor = processor) -> int:
                    return len([processor(read_image(path)[0]) for path in paths])

                def least(processor: ImageProcessor = processor) -> int:
                    return len([floor(path, processor) for path in paths])

                each = in_turns(repeat, densekit=ours, floor=least)
                found[f"{tower}, {aspect_ratio}"] = {
                    "seconds": each["densekit"],
                    "per_second": 1 / each["densekit"],
                    "ratio_to_floor": each["densekit"] / each["floor"],
                }
        mean_bytes = statistics.mean(path.stat().st_size for path in paths)
    return {"bytes": mean_bytes, **found}


def text(tokenizer: Path, tokens: int, repeat: int) -> dict[str, Any]:
    """Seconds a conversation of so many tokens."""
    loaded = load_tokenizer(tokenizer)
    encoder = SampleEncoder(tokenizer=loaded, template="v1", semantics="faithful", max_length=4096)
    generator, turns, length = random.Random(0), [], 0
    while length < tokens:
        answer = " ".join(generator.choices(WORDS.split(), k=45)) + "."
        turns += [{"from": "human", "value": "What is there?"}, {"from": "gpt", "value": answer}]
        length = len(encoder.encode(turns, has_image=False).input_ids)
    plain = " ".join(turn["value"] for turn in turns)

    def ours() -> int:
        return len([encoder.encode(turns, has_image=False) for _ in range(10)])

    def one_pass() -> int:
        return len([loaded.encode(plain) for _ in range(10)])

    each = in_turns(repeat, densekit=ours, one_pass=one_pass)
    return {
        "tokens": length,
        "seconds": each["densekit"],
        "per_second": 1 / each["densekit"],
        "passes": each["densekit"] / each["one_pass"],
    }


def workers(seconds: float) -> dict[str, Any]:
    """How many feed a host, at so many CPU seconds a sample of stage 1."""
    needed = FASTER * SAMPLES / (HOURS * 3600)
    total = needed * seconds
    return {
        "samples_per_second": needed,
        "cpu_seconds_per_second": total,
        "workers": math.ceil(total),
        "per_gpu": math.ceil(total / GPUS),
        "arithmetic": f"{FASTER} x {SAMPLES} samples in {HOURS} h are {needed:.0f} a second; "
        f"x {1000 * seconds:.1f} ms = {total:.2f} CPU seconds a second",
    }


def main() -> None:
    """Print all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument(
        "--tokenizer", type=Path, help="folder of a tokenizer; without: images only"
    )
    given = parser.parse_args()
    read = images(given.images, given.repeat)
    found: dict[str, Any] = {"images": read}
    if given.tokenizer:
        found["text"] = text(given.tokenizer, given.tokens, given.repeat)
    # A caption's text takes 0.0001 s (docs/log.md).
    found["stage1_8_gpus"] = workers(read["CLIP-336, square"]["seconds"] + 0.0001)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
