"""The sentences under a figure: images, attacks, seeds and marks, and what to know before believing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lightning_sparse.report.words import eps_text, name_of, range_text, seeds_text
from lightning_sparse.results.jobs import OUT_OF_REACH
from lightning_sparse.results.norms import eps_in
from lightning_sparse.tables.method_names import level_name

if TYPE_CHECKING:
    import pandas as pd

    from lightning_sparse.tables.collect import Sweep

MOST = 6  # named one by one


def subject(sweep: Sweep, kept: pd.DataFrame) -> str:
    """Say what a figure was measured on: sweep, data, model and number of images. ``kept`` are the averages it shows."""
    subjects = sorted({f"{data}, {model}" for data, model in zip(kept["data"], kept["model"], strict=True)})
    counts = {name_of(str(metric)): range_text(lines["n"]) for metric, lines in kept.groupby("metric")}
    same = len(set(counts.values())) == 1
    if kept.empty:
        return f"{sweep.name}:"
    count = range_text(kept["n"]) if same else ", ".join(f"{n} ({name})" for name, n in counts.items())
    return f"{sweep.name}: {'; '.join(subjects)}; n = {count} test {sweep.samples}."


def attacks(frame: pd.DataFrame) -> str:
    """Say what robust means here: attacks, norm and sizes; empty if the records hold no attack."""
    rows = frame[frame["metric"] == "robust_accuracy"]
    if rows.empty:
        return ""
    names = sorted(set(rows["attack"]) - {"worst"})
    sizes = ", ".join(eps_text(eps) for eps in sorted(set(rows["eps"].dropna())))
    norm = "/".join(sorted(set(rows["norm"])))
    return f"Robust: right under every one of {', '.join(names)} within {norm} eps = {sizes} ({eps_in(rows['norm'])})."


def marks(kept: pd.DataFrame, *, curves: bool = False) -> str:
    """Say what lines, bands, dots and hollow points are, and over how many seeds; in ``curves`` only dense has a band."""
    seeds = seeds_text(kept["seeds"])
    failed = sorted({check for checks in kept["distrusted"] for check in checks})
    hollow = f" Hollow: not to be trusted, for a check failed ({', '.join(failed)})." if failed else ""
    if seeds.startswith("one"):
        return f"Every point is one network, {seeds}.{hollow}"
    if curves:
        return f"Lines are means over {seeds}; band: 95 % Student-t interval of dense.{hollow}"
    return f"Lines are means over {seeds}, bands 95 % Student-t intervals, dots single seeds.{hollow}"


def cells(kept: pd.DataFrame, details: Iterable[str]) -> str:
    """Say what the cells of a heat map of layers are, over how many seeds, and, from the rows' ``details``, how measured."""
    seeds = seeds_text(kept["seeds"])
    over = f"Means over {seeds}; bold: the 95 % Student-t interval leaves out 0."
    if seeds.startswith("one"):
        over = f"Every cell is one network, {seeds}."
    ways = "; or ".join(sorted({detail.partition("not trained; ")[2] for detail in details} - {""}))
    return (
        "A cell: accuracy with this layer alone pruned by magnitude, without training, less that of the same network "
        "unpruned, in points of percent. Lowest row: all layers at once, each to that sparsity; the losses of single layers "
        f"do not add up to it. {over}" + (f" {ways[0].upper()}{ways[1:]}." if ways else "")
    )


def notes(shown: pd.DataFrame, gaps: pd.DataFrame) -> list[str]:
    """Warn of single seeds and failed checks among the averages that a figure shows, and of the sweep's holes."""
    said = []
    seeds: dict[str, int] = {}
    for line in shown[shown["seeds"] > 0].to_dict("records"):
        name = level_name(line["method"], line["sparsity_asked"], line["compressed"])
        seeds[name] = min(line["seeds"], seeds.get(name, line["seeds"]))
    most = max(seeds.values(), default=0)
    if most == 1:
        said.append("One seed: no interval and no claim; another seed may order the methods differently.")
    elif single := [name for name, count in seeds.items() if count == 1]:
        said.append(f"One seed only, and so no interval: {_some(single)}.")
    failed: dict[str, dict[str, None]] = {}
    for line in shown[shown["distrusted"].astype(bool)].to_dict("records"):
        name = level_name(line["method"], line["sparsity_asked"], line["compressed"])
        failed[name] = failed.get(name, {}) | dict.fromkeys(line["distrusted"])
    if failed:
        named = [f"{name} ({', '.join(checks)})" for name, checks in failed.items()]
        said.append(f"Hollow, for a check of trust failed: {_some(named)}.")
    missing = Counter(
        level_name(gap["method"], gap["sparsity_asked"], gap["compressed"])
        for gap in gaps.to_dict("records")
        if gap["method"] and gap["status"] != OUT_OF_REACH
    )
    if missing:
        named = [f"{name} ({count} {'job' if count == 1 else 'jobs'})" for name, count in missing.items()]
        said.append(f"Not in it, for the jobs failed or have not ended: {_some(named)}.")
    return said


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more
