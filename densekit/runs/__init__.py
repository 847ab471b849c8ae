"""The run directory: the contract between the driver, the trainer and whoever reads the result."""
