"""`chatml_direct`: ChatML, for Yi; the official code has no branch that works."""

from densekit.text.template import Template

TEMPLATE = Template(
    system="<|im_start|>system\nAnswer the questions.<|im_end|>",
    human="<|im_start|>user\n",
    assistant="<|im_start|>assistant\n",
    human_end="<|im_end|>",
    assistant_end="<|im_end|>",
)
