"""A data set, read, decoded and split."""
