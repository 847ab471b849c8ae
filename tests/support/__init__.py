"""What tests share: made models, runs and data, ranks in processes, the private engine and Slurm."""
