"""Tags of densekit's own container images: `densekit:TARGET`, one for each target of
docker/Dockerfile.
"""

REPOSITORY = "densekit"
CPU_TARGET = "cpu"


def image_tag(target: str) -> str:
    """The tag that `densekit containers build TARGET` gives."""
    return f"{REPOSITORY}:{target}"


def target_of(image: str) -> str | None:
    """The target that a container image of ours was built from; None for one of others."""
    name, _, target = image.partition(":")
    return target if name == REPOSITORY and target else None


def how_to_get(image: str) -> str:
    """What a message advises where a container image is missing."""
    target = target_of(image)
    return f"run `densekit containers build {target}`" if target else "build or load it"
