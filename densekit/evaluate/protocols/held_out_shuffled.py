"""The same questions about each other's images: what is right then was not seen."""

from densekit.evaluate.protocols import held_out

PROTOCOL = held_out.PROTOCOL.model_copy(
    update={"name": "held_out_shuffled", "split": "images shuffled"}
)
