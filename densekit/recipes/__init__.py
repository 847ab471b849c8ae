"""Recipes: one YAML file per row of the paper, how it is loaded, listed and explained."""
