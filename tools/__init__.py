"""What the project does for itself: pins, releases, pictures, comparisons."""
