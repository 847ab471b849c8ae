"""Recipes: one YAML file per row of the paper, its schema and how it is loaded."""
