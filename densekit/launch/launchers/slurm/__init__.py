"""The Slurm launcher: one job per run, or an array of several."""
