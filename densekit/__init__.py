"""densekit: the reproducibility kit for "Dense Connector for MLLMs" (arXiv 2405.13800)."""

from densekit.registration import register

__version__: str
register()


def __getattr__(name: str) -> str:
    """`__version__`: what was installed (pyproject.toml), read when somebody asks, because the
    library for it takes long to import. Unknown where nothing was installed, as with `make gpu`.
    """
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata

    try:
        version = metadata.version("densekit")
    except metadata.PackageNotFoundError:
        version = "0+unknown"
    globals()[name] = version
    return version
