"""What must be known of a figure before it is believed, said at the figure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from lightning_sparse.tables.method_names import level_name

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
        name = level_name(line["method"], line["sparsity_asked"])
        seeds[name] = min(line["seeds"], seeds.get(name, line["seeds"]))
    most = max(seeds.values(), default=0)
    if most == 1:
        said.append("One seed: no interval and no claim; another seed may order the methods differently.")
    elif single := [name for name, count in seeds.items() if count == 1]:
        said.append(f"One seed only, and so no interval: {_some(single)}.")
    failed: dict[str, dict[str, None]] = {}
    for line in shown[shown["distrusted"].astype(bool)].to_dict("records"):
        failed.setdefault(level_name(line["method"], line["sparsity_asked"]), {}).update(
            dict.fromkeys(line["distrusted"])
        )
    if failed:
        named = [f"{name} ({', '.join(checks)})" for name, checks in failed.items()]
        said.append(f"Hollow, for a check of trust failed: {_some(named)}.")
    missing = Counter(
        level_name(gap["method"], gap["sparsity_asked"]) for gap in gaps.to_dict("records") if gap["method"]
    )
    if missing:
        named = [f"{name} ({count} {'job' if count == 1 else 'jobs'})" for name, count in missing.items()]
        said.append(f"Not in it, for the jobs failed or have not ended: {_some(named)}.")
    return said


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more
