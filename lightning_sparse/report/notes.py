"""What must be known of a figure before it is believed, said at the figure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from lightning_sparse.tables.method_names import is_dense

if TYPE_CHECKING:
    import pandas as pd

MOST = 6  # named one by one


def notes(shown: pd.DataFrame, gaps: pd.DataFrame) -> list[str]:
    """Warn of single seeds, of failed checks of trust and of holes.

    Args:
        shown: lines of :func:`~lightning_sparse.tables.averages.over_seeds` that a figure shows.
        gaps: :func:`~lightning_sparse.tables.gaps.holes` of the part of the sweep.
    """
    said = []
    seeds: dict[str, int] = {}
    for line in shown[shown["seeds"] > 0].to_dict("records"):
        seeds[_name(line)] = min(line["seeds"], seeds.get(_name(line), line["seeds"]))
    most = max(seeds.values(), default=0)
    if most == 1:
        said.append("One seed: no interval and no claim; another seed may order the methods differently.")
    elif single := [name for name, count in seeds.items() if count == 1]:
        said.append(f"One seed only, and so no interval: {_some(single)}.")
    failed: dict[str, dict[str, None]] = {}
    for line in shown[shown["distrusted"].astype(bool)].to_dict("records"):
        failed.setdefault(_name(line), {}).update(dict.fromkeys(line["distrusted"]))
    if failed:
        named = [f"{name} ({', '.join(checks)})" for name, checks in failed.items()]
        said.append(f"Hollow, for a check of trust failed: {_some(named)}.")
    missing = Counter(_name(gap) for gap in gaps.to_dict("records") if gap["method"])
    if missing:
        named = [f"{name} ({count} {'job' if count == 1 else 'jobs'})" for name, count in missing.items()]
        said.append(f"Not in it, for the jobs failed or have not ended: {_some(named)}.")
    return said


def _name(line: dict[Any, Any]) -> str:
    method = str(line["method"])
    return method if is_dense(method) else f"{method} {line['sparsity_asked']:g}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more
