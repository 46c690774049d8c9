"""The names of the drop and grow scores: what a string in a recipe stands for."""

from __future__ import annotations

from typing import Any

from lightning_sparse.engine.scores.of_inputs import obs, wanda
from lightning_sparse.engine.scores.of_layer import gradient, magnitude, random, taylor
from lightning_sparse.engine.scores.of_network import grasp, snip, synflow
from lightning_sparse.engine.scores.running import Fisher, Momentum, Movement

# A function, or a class of which every run gets its own object.
DROP: dict[str, Any] = {
    "magnitude": magnitude,
    "random": random,
    "gradient": gradient,
    "taylor": taylor,
    "movement": Movement,
    "fisher": Fisher,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
    "wanda": wanda,
    "obs": obs,
}
GROW: dict[str, Any] = {"gradient": gradient, "momentum": Momentum, "random": random}
