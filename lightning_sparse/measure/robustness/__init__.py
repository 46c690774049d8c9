"""Attacks, robust accuracy, and whether it can be trusted."""
