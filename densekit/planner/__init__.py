"""Plans: what a recipe becomes on the hardware at hand, whether it fits, how long it takes."""
