"""Which examples pruning gets wrong, and whose gradients vary most."""
