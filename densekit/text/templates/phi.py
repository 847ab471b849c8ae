"""`phi`: Vicuna's turns with Phi-2's end token; the official code has no branch that works (U1)."""

from densekit.text.template import Template
from densekit.text.templates.v1 import SYSTEM

TEMPLATE = Template(
    system=SYSTEM,
    human="USER: ",
    assistant="ASSISTANT: ",
    human_end=" ",
    assistant_end="<|endoftext|>",
    lead=1,
)
