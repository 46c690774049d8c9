"""Callbacks that train sparsely on a Trainer, and callbacks that watch."""
