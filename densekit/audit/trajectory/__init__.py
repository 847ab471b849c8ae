"""A run beside the losses and learning rates that a published training logged."""
