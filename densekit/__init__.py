"""densekit: the reproducibility kit for "Dense Connector for MLLMs" (arXiv 2405.13800)."""

__version__ = "0.1.0"
