"""How an image becomes views of the vision tower, and tokens of the sequence."""

from dataclasses import dataclass

from densekit.spec.connector import Connector


@dataclass(frozen=True, kw_only=True)
class ImageLayout:
    """One square view per image, resized or padded: every image has as many tokens as the next."""

    patches: int
    """Patch tokens of one view, without CLS."""
    connector: Connector

    def tokens(self, image_size: tuple[int, int]) -> int:
        """Feature tokens of an image of (width, height) pixels; here the same for every size."""
        assert min(image_size) > 0, image_size
        return self.max_tokens

    @property
    def max_tokens(self) -> int:
        """Feature tokens of the image that has most."""
        return self.connector.tokens(self.patches)
