"""Inductive biases that a trained network has, each against what chance alone would give."""
