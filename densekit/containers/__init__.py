"""Container images: the base images they are built from, and how they are built."""
