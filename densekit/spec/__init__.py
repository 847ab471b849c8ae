"""What the words mean, each literal once, as frozen types without torch."""
