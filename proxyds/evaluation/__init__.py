"""Trainings that are compared, and what follows from them."""
