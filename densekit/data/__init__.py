"""Training data: annotation files, their index, pixels."""
