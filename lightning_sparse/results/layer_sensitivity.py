"""The sensitivity of layers read back from its rows: which layer, and how much of it was pruned."""

from __future__ import annotations

from lightning_sparse.errors import SparsityError
from lightning_sparse.results.records import Measured, Record

CHANGE = "sensitivity_accuracy_change"
TOGETHER = "all layers"  # no parameter has a blank in its name
UNPRUNED = "no layer"


def changes_by_layer(measured: Measured) -> dict[str, dict[float, Record]]:
    """The rows of the change of accuracy, by layer (and all layers) and sparsity.

    Raises:
        SparsityError: if ``measured`` holds none.

    Example:
        >>> row = Record("sensitivity_accuracy_change", -0.1, 500, condition="head.weight 0.9")
        >>> changes_by_layer(Measured([row]))["head.weight"][0.9].value
        -0.1
    """
    found: dict[str, dict[float, Record]] = {}
    for row in measured.records if isinstance(measured, Measured) else []:
        layer, _, sparsity = row.condition.rpartition(" ")
        if row.metric == CHANGE:
            found.setdefault(layer, {})[float(sparsity)] = row
    if not found:
        raise SparsityError(
            f"measured={type(measured).__name__} holds no sensitivity of layers: write "
            "measured=measure_sensitivity_of_layers(model, (images, labels))"
        )
    return found
