"""Sparse training clinging to a Trainer, and what watches it."""
