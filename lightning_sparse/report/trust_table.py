"""The checks of trust as a table: the worst that each found, and whether it passed."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from lightning_sparse.report.words import name_of
from lightning_sparse.results.verdicts import has_failed
from lightning_sparse.tables.frames import latest, lines_of
from lightning_sparse.tables.method_names import is_dense

if TYPE_CHECKING:
    import pandas as pd


def trust_table(frame: pd.DataFrame, compressed: Collection[str] = ()) -> dict[str, Any] | None:
    """Make a table with one line per method and sparsity, dense first, and one column per check; None without checks.

    The levels of ``compressed`` methods are of bits.
    A cell holds the largest number that the check found over seeds and eps, and how many of how many times it ``failed``.
    """
    rows = latest(frame)
    rows = rows[rows["metric"].str.startswith("trust_")]
    if rows.empty:
        return None
    checks = list(dict.fromkeys(rows["metric"]))
    lines = []
    keys = rows[["method", "sparsity_asked"]].drop_duplicates()
    keys = keys.assign(order=~keys["method"].map(is_dense).astype(bool))
    keys = keys.sort_values(["order", "method", "sparsity_asked"])
    for method, sparsity in keys[["method", "sparsity_asked"]].itertuples(index=False):
        own = lines_of(rows, method=method, sparsity_asked=sparsity)
        cells = [_cell(own[own["metric"] == check]) for check in checks]
        line = {"method": method, "sparsity_asked": sparsity, "compressed": method in compressed}
        lines.append(line | {"cells": cells})
    return {"columns": [name_of(check).removeprefix("trust ") for check in checks], "lines": lines}


def _cell(found: pd.DataFrame) -> dict[str, Any]:
    failed = sum(map(has_failed, found["trust"]))
    worst = found["value"].max()
    return {"shown": f"{worst:.2g}" if worst == worst else "", "failed": failed, "of": sum(found["trust"] != "")}
