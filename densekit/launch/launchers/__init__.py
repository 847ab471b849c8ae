"""Ways to start a run: on this host, in a container, through Slurm."""
