"""Subsets"""
def find_subset(*a): raise NotImplementedError
