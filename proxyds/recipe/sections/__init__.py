"""The larger sections of a recipe; the others are in `recipe.models`."""
