"""What the command line says to launchers."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from densekit.errors import UsageError
from densekit.launch.launchers.paths import printable
from densekit.spec.site import Site
from densekit.spec.types import ContainerRuntime


@dataclass(frozen=True, kw_only=True)
class LauncherOptions:
    """What the command line says to launchers; each launcher takes some of it."""

    image: str | None = None
    """Container image."""
    container: ContainerRuntime | None = None
    sbatch: Sequence[str] = ()
    """Options of sbatch, each as `partition=gpu`."""
    queue_minutes: float | None = None
    """How long a job may wait for its nodes."""

    def given(self) -> list[str]:
        """Names of the options that say something."""
        default = LauncherOptions()
        return [
            field.name
            for field in fields(self)
            if getattr(self, field.name) != getattr(default, field.name)
        ]

    def filled(self, takes: Sequence[str], site: Site) -> "LauncherOptions":
        """The same with the site's settings in place of what the command line leaves open, as far
        as the launcher `takes` them. Options of sbatch add up: the last of a name holds.

        Raises UsageError for an image that a launcher would read as one of its own options.
        """
        given = self.given()
        settings = {name: getattr(site, name) for name in takes if name not in given}
        if "sbatch" in given:
            settings["sbatch"] = (*site.sbatch, *self.sbatch)
        filled = replace(self, **settings)
        image = filled.image
        if image is not None and (not image or image[0] == "-" or printable(image) != image):
            raise UsageError(
                f"--image '{printable(image)}': give the name of a container image, or the path of "
                "its file"
            )
        if filled.container == "none" and "image" not in given:
            return replace(filled, image=None)  # the site's is for the site's containers
        return filled
