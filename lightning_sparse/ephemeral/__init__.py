"""Sparsity that lasts for one example or one step: activations, and what else a pass leaves out."""
