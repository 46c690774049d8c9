"""Comparisons between the jobs of a sweep, made when it has ended."""
