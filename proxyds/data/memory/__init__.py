"""Data that a Python program passes, in the forms in which programs hold images and labels."""
