"""The run directory: the contract between the driver and the trainer."""
