"""The images the kit runs in: what they are built from, and how they are built."""
