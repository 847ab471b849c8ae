"""The memory of one training step: automatic differentiation of sizes instead of numbers."""
