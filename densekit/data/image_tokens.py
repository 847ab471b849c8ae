"""Tokens of an image in its sequence: one number, or by the size in the image's header (AnyRes)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densekit.spec.vision import ImageLayout


@dataclass(frozen=True, kw_only=True)
class ImageTokens:
    """How the images of a folder become tokens."""

    layout: ImageLayout
    folder: Path

    def of(self, image: str | None) -> int:
        """Tokens of one image of the folder; where they depend on its size, 1 for a text-only
        sample (None), whose tags are text. Raises DataError for a header that cannot be read.
        """
        if not self.layout.varies:
            return self.layout.max_tokens
        if image is None:
            return 1
        from densekit.data.pixels import image_size  # loads Pillow, which a plan does not need

        return self.layout.tokens(image_size(self.folder / image))

    @property
    def sizes(self) -> dict[str, Any] | None:
        """What they follow from where they depend on sizes, as JSON; None where they do not."""
        anyres = self.layout.anyres
        if anyres is None:
            return None
        return {"anyres": anyres.model_dump(mode="json"), "images": str(self.folder.resolve())}
