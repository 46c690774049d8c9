"""The networks that a sparse one has to be compared with before anything is said of sparsity."""

from __future__ import annotations

CONTROLS = ("dense", "static", "small_dense")
"""All of the weights; as many as the sparse network has, but at random places that never change; and as many in a dense
network that is smaller. Each trains as long as the sparse one."""


def with_controls(*methods: str) -> str:
    """Append the controls that are missing to a comma-separated list of methods, for a sweep's ``sparsity`` axis.

    In a sweep: ``sparsity: ${methods:gradual_pruning,rigl}``, and ``controls=true``.

    Args:
        methods: names, or comma-separated lists of names.

    Returns:
        All of them in order, each once, then the controls not among them.

    Example:
        >>> with_controls("gradual_pruning,rigl")
        'gradual_pruning,rigl,dense,static,small_dense'
        >>> with_controls("static, rigl", "dense")
        'static,rigl,dense,small_dense'
    """
    asked = [name.strip() for part in methods for name in str(part).split(",")]
    return ",".join(dict.fromkeys([name for name in asked if name] + list(CONTROLS)))
