"""From the sensitivity of layers to rules for a training: each layer gets the sparsity that it bears."""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from lightning_sparse.engine.layer_rules import LayerRules
from lightning_sparse.errors import SparsityError, check_share
from lightning_sparse.results.layer_sensitivity import UNPRUNED, changes_by_layer
from lightning_sparse.results.records import Measured, Record

ACCURACY, SIZE = "sensitivity_accuracy", "sensitivity_connections"


@dataclass(frozen=True)
class SuggestedRules:
    """What :func:`suggest_layer_rules` suggests.

    Attributes:
        rules: the allocation.
        sparsity: of the whole network, in [0, 1), if each layer has what it bears: the ``final_sparsity`` of a training.
        bears: by layer, the highest sparsity that it bears alone.
    """

    rules: LayerRules
    sparsity: float
    bears: Mapping[str, float] = field(default_factory=dict)

    @property
    def python(self) -> str:
        """The suggestion as a callback, for a script; both names are imported from ``lightning_sparse``."""
        own = f", sparsity={dict(self.rules.sparsity)!r}" if self.rules.sparsity else ""
        return f'GradualPruning({self.sparsity!r}, allocation=LayerRules("{self.rules.base}"{own}))'

    @property
    def yaml(self) -> str:
        """The suggestion as a callback in a configuration that Hydra reads, such as a file in ``conf/sparsity/``."""
        lines = [
            "_target_: lightning_sparse.GradualPruning",
            f"final_sparsity: {self.sparsity!r}",
            "allocation:",
            "  _target_: lightning_sparse.LayerRules",
            f"  base: {self.rules.base}",
        ]
        lines += ["  sparsity:"] if self.rules.sparsity else []
        lines += [f"    {json.dumps(pattern)}: {own!r}" for pattern, own in self.rules.sparsity.items()]
        return "\n".join(lines)


def suggest_layer_rules(measured: Measured, tolerance: float | str = 0.01) -> SuggestedRules:
    """Suggest how sparse each layer of a network should be, from what it loses when that layer alone is pruned.

    A layer bears the highest of the measured sparsities up to which it never loses more accuracy than ``tolerance``; if it
    does not bear the lowest, it stays dense. The layers that bear the most common sparsity get no rule: they share what is
    left evenly, which is what they bear.

    It is a starting point and no promise: all layers together lose more than any of them alone, and training repairs much of
    it. As measured (docs/measurement.md), such rules are better than ``"uniform"`` where that fails, and no better than
    ``"global"`` or ``"erk"`` at the same sparsity. Compare.

    Args:
        measured: what :func:`~lightning_sparse.measure.measure_sensitivity_of_layers` returned.
        tolerance: the loss of accuracy that is tolerated for each layer, a share in [0, 1], such as 0.01; or ``"1se"``, one
            standard error of the unpruned network's accuracy over the images.

    Returns:
        The rules, the sparsity of the network that follows from them, and both as text. Parameters go by the names that
        they have in the model that was measured: measure the module that is trained. Give the callback the granularity
        that was measured.

    Raises:
        SparsityError: if ``measured`` is something else, or no layer bears any of the sparsities.

    Example:
        >>> from lightning_sparse.results.records import Record
        >>> losses = {"body.weight 0.9": 0.0, "body.weight 0.99": -0.2, "head.weight 0.9": -0.1, "head.weight 0.99": -0.5}
        >>> rows = [Record("sensitivity_accuracy_change", loss, 500, condition=name) for name, loss in losses.items()]
        >>> sizes = {"body.weight": 9000, "head.weight": 1000}
        >>> rows += [Record("sensitivity_connections", size, 0, condition=name) for name, size in sizes.items()]
        >>> found = suggest_layer_rules(Measured(rows), tolerance=0.01)
        >>> print(found.python)
        GradualPruning(0.81, allocation=LayerRules("uniform", sparsity={'head.weight': 0.0}))
        >>> print(found.yaml)
        _target_: lightning_sparse.GradualPruning
        final_sparsity: 0.81
        allocation:
          _target_: lightning_sparse.LayerRules
          base: uniform
          sparsity:
            "head.weight": 0.0
    """
    changes = changes_by_layer(measured)
    rows = {row.condition: row for row in measured.records if row.metric in (SIZE, ACCURACY)}
    sizes = {name: int(rows[name].value) for name in changes if name in rows}
    slack = _slack(tolerance, rows.get(f"{UNPRUNED} 0"))
    if not sizes:
        raise SparsityError(
            f"measured holds no {SIZE!r}: write measured=measure_sensitivity_of_layers(model, (images, labels)), with all of "
            "its rows"
        )
    bears = {name: _borne(changes[name], slack) for name in sizes}
    dead = {name: min(round(bears[name] * size), size - 1) for name, size in sizes.items()}
    if not any(dead.values()):
        least = min(-changes[name][min(changes[name])].value for name in sizes)
        raise SparsityError(
            f"tolerance={tolerance!r}: no layer bears the lowest of the sparsities, the least loss is {least:.4g}: write "
            f"tolerance={math.ceil(least * 1000) / 1000}, or measure lower sparsities"
        )
    # Without a rule are those with the most room both ways, because rounding is left to them.
    room: dict[float, int] = {}
    for name, size in sizes.items():
        room[bears[name]] = room.get(bears[name], 0) + min(dead[name], size - dead[name])
    common = max(room, key=lambda sparsity: room[sparsity])
    own = {glob.escape(name): sparsity for name, sparsity in bears.items() if sparsity != common}
    return SuggestedRules(LayerRules("uniform", own), _shortest(sum(dead.values()), sum(sizes.values())), bears)


def _slack(tolerance: float | str, whole: Record | None) -> float:
    """The tolerance as a number."""
    if isinstance(tolerance, str) and tolerance == "1se":
        if whole is None:
            raise SparsityError(
                f"tolerance='1se' needs the accuracy of the unpruned network ({UNPRUNED} 0), which measured does not hold: "
                "write tolerance=0.01"
            )
        return math.sqrt(whole.value * (1 - whole.value) / whole.n)
    if isinstance(tolerance, str):
        raise SparsityError(f"tolerance={tolerance!r} is no number: write a share such as 0.01, or '1se'")
    return check_share("tolerance", tolerance)


def _borne(changes: Mapping[float, Record], slack: float) -> float:
    borne = 0.0
    for sparsity in sorted(changes):
        if -changes[sparsity].value > slack + 1e-9:  # a loss of exactly the tolerance is tolerated
            break
        borne = sparsity
    return borne


def _shortest(dead: int, total: int) -> float:
    """The shortest number that gives this many dead connections."""
    return next(
        share for digits in range(2, 18) if round((share := float(f"{dead / total:.{digits}g}")) * total) == dead
    )
