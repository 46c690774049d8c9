"""What the page says about a point when the mouse is over it."""

from __future__ import annotations

from html import escape
from typing import Any

from lightning_sparse.report.words import name_of, number, seeds_text, sparsity_text
from lightning_sparse.results.quantities import quantity
from lightning_sparse.tables.method_names import is_dense, level_words


def hover(line: dict[Any, Any]) -> str:
    """Say of a line of averages: the mean, its interval and single seeds, how many samples and seeds, and failed checks."""
    metric = line["metric"]
    compressed = line["compressed"]
    level = "" if is_dense(line["method"]) else f", {level_words(line['sparsity_asked'], compressed)}"
    achieved = f" (achieved {sparsity_text(line['sparsity'], compressed)})" if level else ""
    unit = {"%": " %", "points": " points"}.get(quantity(metric).unit, "")
    name = name_of(metric, line["attack"], line["eps"] or float("nan"), line["attribution"])
    said = [
        f"<b>{escape(line['method'])}</b>{level}{achieved}",
        f"{escape(name)}: <b>{number(metric, line['mean'])}</b>{unit}",
    ]
    if line["seeds"] > 1:
        low, high = number(metric, line["low"]), number(metric, line["high"])
        singles = [number(metric, value) for value in line["values"]]
        some = ", ".join(singles[:10]) + (f", … ({len(singles)})" if len(singles) > 10 else "")
        said += [f"95 % interval over {line['seeds']} seeds: {low} to {high}{unit}", f"single seeds: {some}"]
    else:
        said.append(seeds_text([line["seeds"]]))
    if "kilobits" in line:
        said.append(f"description: {line['kilobits']:.4g} kilobits")
    if "time" in line:
        said.append(f"{line['time']:.3g} of dense's time, as {escape(line['form'])}")
    if "kilobytes" in line:
        said.append(f"{line['kilobytes']:.4g} kB, as {escape(line['form'])}")
    said.append(f"n = {line['n']}")
    if line["distrusted"]:
        said.append(f"✗ not to be trusted: failed {escape(', '.join(line['distrusted']))}")
    return "<br>".join(said)
