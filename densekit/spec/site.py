"""Settings of a site: where things are on a machine or a cluster, and how runs are started there.

They choose where and how a run trains, never what it computes. They stand in `densekit.yaml`
(docs/site-settings.md); `densekit site` prints those in effect and where each comes from.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from densekit.spec.part import Part
from densekit.spec.roots import Roots
from densekit.spec.types import ContainerRuntime

_ROOTS = Roots()
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Word = Annotated[str, Field(min_length=1)]


class Site(Part):
    """One value per key; None leaves it to densekit. Each key is also an option of the command
    line (`--data-dir`) and a variable of the environment (`DENSEKIT_DATA_DIR`).
    """

    runs_dir: Path = Path("runs")
    """Folder of the run directories."""
    data_dir: Path = _ROOTS.data
    """What `data:` stands for in recipes: annotations and images."""
    models_dir: Path = _ROOTS.models
    """What `models:` stands for: language models and vision towers."""
    cache_dir: Path = _ROOTS.cache
    """What `cache:` stands for: what densekit makes itself."""
    launcher: Word | None = None
    """What starts trainers: local, docker or slurm. None: docker on a GPU host, else local."""
    image: Word | None = None
    """Container image of docker; for slurm a registry address, .sqsh or .sif file. None: the one
    for the GPUs found.
    """
    gpu: Word | None = None
    """GPU type of the cluster, for slurm. None: the one that the paper used."""
    container: ContainerRuntime = "none"
    """What runs containers on the cluster, for slurm; none: the same Python on every node."""
    sbatch: tuple[Word, ...] = ()
    """Options of sbatch, for slurm, as in `partition=gpu`. Those of the command line are added;
    of two with one name the command line's holds.
    """
    queue_minutes: NotNegative | None = None
    """Cancel a job that waits longer than this for its nodes, for slurm. None: wait."""
    save_steps: Positive | None = None
    """Save a checkpoint every so many optimizer steps. None: by minutes alone."""
    save_minutes: NotNegative | None = None
    """Save a checkpoint every so many minutes; 0: by steps alone. None: every 15."""
    keep: Positive | None = None
    """Newest checkpoints to keep. None: 2."""
    keep_hours: NotNegative | None = None
    """Also keep checkpoints younger than this. None: none of them."""
    price: NotNegative | None = None
    """What one GPU costs for an hour, in any currency, for `densekit plan`. None: no costs."""

    @property
    def roots(self) -> Roots:
        """The named roots."""
        return Roots(data=self.data_dir, models=self.models_dir, cache=self.cache_dir)
