"""Sections of a recipe that stand alone; the others are in `recipe.models`."""
