"""Reading and checking training data, and the tiny data set the kit makes itself."""

from densekit.datasets.annotations import Annotations, Sample, check_images
from densekit.datasets.shapes import make_shapes

__all__ = ["Annotations", "Sample", "check_images", "make_shapes"]
