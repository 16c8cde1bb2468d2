"""Families of networks: the list in `families.py`, their parameters, a file of torch code each."""
