"""Plans: what a recipe becomes on the hardware at hand."""
