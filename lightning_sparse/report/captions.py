"""The sentences under a figure: how many images, which attacks, how many seeds, what the marks are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_sparse.report.words import eps_text, name_of, range_text, seeds_text

if TYPE_CHECKING:
    import pandas as pd

    from lightning_sparse.tables.collect import Sweep


def subject(sweep: Sweep, kept: pd.DataFrame) -> str:
    """Say what a figure was measured on: sweep, data, model and number of images.

    Args:
        sweep: the sweep, for its name.
        kept: the lines of :func:`~lightning_sparse.tables.averages.over_seeds` that the figure shows.
    """
    subjects = sorted({f"{data}, {model}" for data, model in zip(kept["data"], kept["model"], strict=True)})
    counts = {name_of(str(metric)): range_text(lines["n"]) for metric, lines in kept.groupby("metric")}
    same = len(set(counts.values())) == 1
    images = range_text(kept["n"]) if same else ", ".join(f"{n} ({name})" for name, n in counts.items())
    return f"{sweep.name}: {'; '.join(subjects)}; n = {images} test images."


def attacks(frame: pd.DataFrame) -> str:
    """Say what robust means here: attacks, norm and sizes; empty if the records hold no attack."""
    rows = frame[frame["metric"] == "robust_accuracy"]
    if rows.empty:
        return ""
    names = sorted(set(rows["attack"]) - {"worst"})
    sizes = ", ".join(eps_text(eps) for eps in sorted(set(rows["eps"].dropna())))
    norm = "/".join(sorted(set(rows["norm"])))
    return f"Robust: right under every one of {', '.join(names)} within {norm} eps = {sizes} (pixels in [0, 1])."


def marks(kept: pd.DataFrame, *, curves: bool = False) -> str:
    """Say what lines, bands, dots and hollow points are, and over how many seeds.

    Args:
        kept: as for :func:`subject`.
        curves: whether only dense has a band, as in the security curves.
    """
    seeds = seeds_text(kept["seeds"])
    failed = sorted({check for checks in kept["distrusted"] for check in checks})
    hollow = f" Hollow: not to be trusted, for a check failed ({', '.join(failed)})." if failed else ""
    if seeds.startswith("one"):
        return f"Every point is one network, {seeds}.{hollow}"
    if curves:
        return f"Lines are means over {seeds}; band: 95 % Student-t interval of dense.{hollow}"
    return f"Lines are means over {seeds}, bands 95 % Student-t intervals, dots single seeds.{hollow}"
