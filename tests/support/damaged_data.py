"""A small clean data set, for tests that damage it."""

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from densekit.data.catalog import DataSet
from densekit.data.doctor.examine import Examination, Request, examine
from densekit.data.doctor.subject import Subject

GRADIENT = Image.merge(
    "RGB",
    [
        Image.linear_gradient("L").resize((24, 16)),
        Image.linear_gradient("L").rotate(90).resize((24, 16)),
        Image.radial_gradient("L").resize((24, 16)),
    ],
)


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="JPEG")
    return file.getvalue()


JPEGS = [_jpeg(GRADIENT.rotate(20 * number)) for number in range(6)]


def turns(*texts: str) -> list[dict[str, str]]:
    """Turns of human and gpt in turn."""
    return [
        {"from": "gpt" if number % 2 else "human", "value": text}
        for number, text in enumerate(texts)
    ]


class World:
    """Six images in two folders, an entry for each and two text-only ones."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "images"
        self.annotations = place / "train.json"
        self.cache = place / "cache"
        self.data_set: DataSet | None = None
        self.written = False
        self._lines = False
        self._settings: dict[str, Any] = {"template": "v1", "max_length": 2048}
        self.entries: list[Any] = []
        for number in range(6):
            name = f"{'ab'[number // 3]}/{number}.jpg"
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(JPEGS[number])
            conversation = turns(f"<image>\nWhat is in picture {number}?", "A ramp of colours.")
            self.entries.append({"id": str(number), "image": name, "conversations": conversation})
        for number in (6, 7):
            conversation = turns(f"What is {number} + 1?", str(number + 1))
            self.entries.append({"id": str(number), "conversations": conversation})

    def image(self, number: int) -> Path:
        """The file of an image."""
        return self.folder / f"{'ab'[number // 3]}/{number}.jpg"

    def use(self, **settings: Any) -> None:
        """Set fields of the subject."""
        self._settings |= settings

    def use_plain(self) -> None:
        """Captions alone, for the template of stage 1."""
        self.use(template="plain")
        self.entries = [entry for entry in self.entries if "image" in entry]
        for number, entry in enumerate(self.entries):
            entry["conversations"] = turns("<image>", f"Caption {number}.")

    def use_no_file(self) -> None:
        """Have no annotation file."""
        self.written = True

    def use_lines(self) -> None:
        """Write JSON Lines."""
        self._lines = True

    def with_file_counts(self, counts: dict[str, int]) -> None:
        """Let the catalog count the files of folders."""
        assert self.data_set is not None
        parts = [
            {"name": name, "folder": name, "fileCount": count, "source": "the test"}
            for name, count in counts.items()
        ]
        values = self.data_set.model_dump(by_alias=True) | {"distribution": parts}
        self.data_set = DataSet.model_validate(values)

    def write(self) -> None:
        """Write the annotation file, unless a damage is one of the file itself."""
        if self.written:
            return
        text = json.dumps(self.entries)
        if self._lines:
            text = "\n".join(map(json.dumps, self.entries))
        self.annotations.write_text(text)

    def subject(self, **settings: Any) -> Subject:
        """What is examined."""
        return Subject(
            name="made",
            annotations=self.annotations,
            images=self.folder,
            data_set=self.data_set,
            **(self._settings | settings),
        )

    def examine(
        self, request: Request, *, cache: str | None = None, **settings: Any
    ) -> Examination:
        """Write the annotations and look."""
        self.write()
        return examine(self.subject(**settings), request, self.cache / (cache or ""))
