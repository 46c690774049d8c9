"""The networks that a sparse one has to be compared with before anything is said of sparsity."""

from __future__ import annotations

CONTROLS = ("dense", "static", "small_dense")
"""All of the weights; as many as the sparse network has, at random places that never change; and as many in a smaller
dense network. Each trains as long as the sparse one."""


def with_controls(*methods: str) -> str:
    """Append the missing controls to names, or comma-separated lists of names, of methods, each once.

    In a sweep: ``sparsity: ${methods:gradual_pruning,rigl}``, and ``controls=true``.

    Example:
        >>> with_controls("gradual_pruning,rigl")
        'gradual_pruning,rigl,dense,static,small_dense'
        >>> with_controls("static, rigl", "dense")
        'static,rigl,dense,small_dense'
    """
    asked = [name.strip() for part in methods for name in str(part).split(",")]
    return ",".join(dict.fromkeys([name for name in asked if name] + list(CONTROLS)))


def with_steering_controls(*scores: str, noise: bool) -> str:
    """Append to names of steerings what they have to be held against: none, random, and the oracle where noise is planted.

    In a sweep: ``steering: ${steerings:loss,vog}``.

    Example:
        >>> with_steering_controls("loss,vog", noise=True), with_steering_controls("loss", "random", noise=False)
        ('loss,vog,none,random,oracle', 'loss,random,none')
    """
    asked = [name.strip() for part in scores for name in str(part).split(",")]
    return ",".join(dict.fromkeys([*filter(None, asked), "none", "random", *(["oracle"] if noise else [])]))
