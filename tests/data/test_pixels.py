"""Pixels: resizing, padding, normalisation, and what happens to files that cannot be decoded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densekit.data.pixels import ImageProcessor, open_image, read_image
from densekit.errors import DataError
from densekit.model.preprocess import normalise
from densekit.spec.types import AspectRatio


@pytest.fixture(params=["clip_tiny", "siglip_tiny"])
def tower(request: pytest.FixtureRequest, golden: Path) -> Path:
    return golden / "models" / request.param


def _official(raw: np.ndarray, processor: ImageProcessor) -> np.ndarray:
    scaled = (raw.astype(np.float64) * (1 / 255)).astype(np.float32)
    mean, std = (
        np.array(v, dtype=np.float32)[:, None, None] for v in (processor.mean, processor.std)
    )
    return (scaled - mean) / std


def test_the_lookup_table_is_the_official_order_of_operations(tower: Path) -> None:
    processor = ImageProcessor.from_pretrained(tower, "square")
    raw = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), (3, 1, 1))
    found = normalise(torch.from_numpy(raw)[None], torch.from_numpy(processor.lookup_table()))[
        0
    ].numpy()
    assert found.dtype == np.float32
    assert np.array_equal(found, _official(raw, processor))
    naive = (
        raw.astype(np.float32) * np.float32(1 / 255) - np.float32(processor.mean[0])
    ) / np.float32(processor.std[0])
    assert processor.mean[0] == 0.5 or not np.array_equal(found[0], naive[0])


@pytest.mark.parametrize("size", [(40, 90), (91, 33), (56, 56), (1, 300)])
def test_pixels_equal_transformers_own_processor(tower: Path, size: tuple[int, int]) -> None:
    from transformers import AutoImageProcessor

    stock = AutoImageProcessor.from_pretrained(tower, backend="pil")
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    )
    processor = ImageProcessor.from_pretrained(tower, "square")
    found = normalise(
        torch.from_numpy(processor(image))[None], torch.from_numpy(processor.lookup_table())
    )
    assert torch.equal(found, stock(image, return_tensors="pt")["pixel_values"])


def test_padding_centres_the_image_on_the_mean_colour(golden: Path) -> None:
    processor = ImageProcessor.from_pretrained(golden / "models" / "clip_tiny", "pad")
    out = processor(Image.new("RGB", (56, 20), (255, 0, 0)))
    assert out.shape == (3, 56, 56) and out.dtype == np.uint8
    assert out[:, 0, 0].tolist() == [122, 116, 104]
    assert out[:, 28, 28].tolist() == [255, 0, 0]


@pytest.mark.parametrize("aspect_ratio", ["square", "pad"])
def test_an_image_one_pixel_high_is_not_blown_up(golden: Path, aspect_ratio: AspectRatio) -> None:
    processor = ImageProcessor.from_pretrained(golden / "models" / "clip_tiny", aspect_ratio)
    assert processor(Image.new("RGB", (4000, 1))).shape == (3, 56, 56)
    with pytest.raises(DataError, match=r"1 x 600,000 pixels would become one of .*: crop it"):
        processor(Image.new("RGB", (1, 600_000)))


def test_every_mode_becomes_rgb(golden: Path) -> None:
    processor = ImageProcessor.from_pretrained(golden / "models" / "siglip_tiny", "square")
    for mode in ("L", "P", "RGBA", "1", "CMYK"):
        assert processor(Image.new(mode, (30, 30))).shape == (3, 384, 384)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image .*gone\.png is missing"):
        open_image(tmp_path / "gone.png")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"text\.jpg cannot be decoded"):
        open_image(tmp_path / "text.jpg")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    with pytest.raises(DataError, match=r"cut\.png cannot be decoded"):
        open_image(tmp_path / "cut.png")


@pytest.mark.parametrize(
    "change",
    [
        {"size": {"height": 0, "width": 0}},
        {"size": True},
        {"image_mean": [0.5]},
        {"image_std": [0.0, 0.5, 0.5]},
        {"image_std": ["x", "y", "z"]},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127},
        {"crop_size": 100, "size": {"shortest_edge": 384}},
        {"size": {"height": 10, "width": 20}},
        {"resample": 2},
        {"image_mean": None},
        {"size": None},
        {"size": "384"},
        {"size": 384, "image_processor_type": "SiglipImageProcessor"},
        {"size": {"shortest_edge": 384, "longest_edge": 400}},
        {"size": {"shortest_edge": 384}, "do_center_crop": False},
        {"size": {"shortest_edge": 384}, "do_center_crop": None},
        {"do_center_crop": True, "crop_size": {"height": 200, "width": 200}},
        {"do_pad": True},
        {"image_processor_type": "ViTImageProcessor"},
        {"image_processor_type": "Siglip2ImageProcessor"},
        {"image_processor_type": 7},
        {"image_mean": [123.7, 116.3, 103.5]},
        {"image_mean": [-0.1, 0.5, 0.5]},
        {"image_mean": [True, 0.5, 0.5]},
        {"image_mean": ["0.5", "0.5", "0.5"]},
        {"image_std": [1e-300, 0.5, 0.5]},
        {"image_std": [58.4, 57.1, 57.4]},
        {"rescale_factor": None},
        {"resample": "bicubic"},
    ],
)
def test_an_unknown_preprocessor_is_refused(golden: Path, tmp_path: Path, change: dict) -> None:
    config = json.loads(
        (golden / "models" / "siglip_tiny" / "preprocessor_config.json").read_text()
    )
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(DataError, match=r"json (cannot be used|has no)") as raised:
        ImageProcessor.from_pretrained(tmp_path, "square")
    assert str(tmp_path / "preprocessor_config.json") in str(raised.value)
    assert "object" not in str(raised.value)  # Python's own words


def test_a_missing_preprocessor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        ImageProcessor.from_pretrained(tmp_path, "square")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


def test_no_program_is_started_for_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("started"))
    (tmp_path / "a.png").write_bytes(POSTSCRIPT)
    with pytest.raises(DataError, match=r"a\.png cannot be decoded \(not an image, or of"):
        open_image(tmp_path / "a.png")


@pytest.mark.ranks
def test_broken_exif_prints_no_line_of_pillows_source(tmp_path: Path) -> None:
    """In a process of its own: pytest catches warnings."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*" + b"\xff" * 50)
    code = (
        "import sys; from pathlib import Path; from densekit.data.decoding import header_of; "
        "print(header_of(Path(sys.argv[1])).orientation)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.jpg")], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, KeyError, MemoryError])
def test_whatever_a_decoder_raises_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """AVIF raises RuntimeError, BLP and DDS NotImplementedError, others what they like."""

    def load(self: Image.Image) -> None:
        raise error("Failed to decode frame 0")

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(DataError, match=rf"a\.png cannot be decoded \({error.__name__}: .*Failed"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["deep.png", "float.tiff"])
def test_more_than_8_bits_are_cut_off_officially_and_else_refused(
    tmp_path: Path, name: str
) -> None:
    mode = "F" if name == "float.tiff" else "I;16"
    Image.new(mode, (8, 8), 1000 if mode == "I;16" else 0.5).save(tmp_path / name)
    image, _ = read_image(tmp_path / name)
    assert set(image.tobytes()) <= ({255} if mode == "I;16" else {0}), "what Pillow's convert gives"
    with pytest.raises(DataError, match=rf"{name} has more than 8 bits a channel"):
        read_image(tmp_path / name, "fixed")


def test_an_image_is_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"image .*a\.png cannot be read: it is not a regular file"):
        open_image(tmp_path / "a.png")
