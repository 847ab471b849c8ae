"""densekit: the reproducibility kit for "Dense Connector for MLLMs" (arXiv 2405.13800)."""

from densekit.registration import register

__version__ = "0.1.0"

register()
