"""The result in a few sentences made from the numbers: dense against the sparsest network of every method."""

from __future__ import annotations

from itertools import filterfalse
from typing import TYPE_CHECKING, Any

from lightning_sparse.report.words import eps_text, number, range_text
from lightning_sparse.results.norms import eps_in
from lightning_sparse.tables.averages import interval
from lightning_sparse.tables.frames import latest, middle_worst
from lightning_sparse.tables.method_names import dense_of, is_dense, level_words

if TYPE_CHECKING:
    import pandas as pd

    from lightning_sparse.tables.collect import Sweep

CLEAN = "clean/accuracy"
BITS = "language/bits"
STEERED = "difference_random_steering"


def headline(sweep: Sweep) -> list[str]:
    """Say what a sweep over one data set and one model found, one sentence or two per line.

    First the dense network, then the sparsest measured network of every method with its difference from dense, seed by
    seed, then what the numbers are. If nothing was measured, one line says so.
    """
    averages = sweep.averages
    measured = averages[averages["chart"] == CLEAN]
    if measured.empty:
        return ["No accuracy was measured: see the holes above."]
    robust = middle_worst(averages)
    charts = [CLEAN, robust["chart"]] if robust else [CLEAN]
    bits = [BITS] if (averages["chart"] == BITS).any() else []
    methods = sorted(set(measured["method"]))
    dense = filter(is_dense, methods)
    said = [f"D{method[1:]}: {_levels(averages[averages['method'] == method], bits + charts)}." for method in dense]
    for method in filterfalse(is_dense, methods):
        sparsity = measured.loc[measured["method"] == method, "sparsity_asked"].max()
        chosen = averages[(averages["method"] == method) & (averages["sparsity_asked"] == sparsity)]
        change = _change(sweep.frame, method, dense_of(method, sweep.frame), sparsity, bits + charts)
        level = level_words(sparsity, method in sweep.compressed)
        said.append(f"{method} at {level}: {_levels(chosen, bits + charts)}.{change}")
    said += [_steered(line, sweep) for line in averages.to_dict("records") if line["metric"] == STEERED]
    return [*said, _meaning(sweep, measured, robust)]


def _steered(line: dict[Any, Any], sweep: Sweep) -> str:
    """Whether a steering by a score is better than one at random."""
    mean, half, level = 100 * line["mean"], 100 * line["half"], line["sparsity_asked"]
    which = line["method"] + (
        "" if is_dense(line["method"]) else f" at {level_words(level, line['method'] in sweep.compressed)}"
    )
    if half != half:
        verdict, ends = "one seed, and no claim", ""
    else:
        verdict = (
            "better than random" if mean > half else "worse than random" if mean < -half else "no better than random"
        )
        ends = f" [{mean - half:+.1f}, {mean + half:+.1f}]"
    says = f"{mean:+.1f}{ends}".replace("-", "\N{MINUS SIGN}")
    return f"Steered, {which}: clean {says} points over as many images chosen at random, {verdict}."


def _levels(lines: pd.DataFrame, charts: list[str]) -> str:
    said = []
    for line in lines[lines["chart"].isin(charts)].sort_values("eps", na_position="first").to_dict("records"):
        shown = number(line["metric"], line["mean"], line["half"])
        unit = {CLEAN: "% clean", BITS: "bits a token"}.get(line["chart"], "% robust")
        said.append(f"{shown} {unit}")
    return ", ".join(said)


def _change(frame: pd.DataFrame, method: str, dense_name: str, sparsity: float, charts: list[str]) -> str:
    """Difference from the dense network of the same seed, so that luck of the seed cancels."""
    rows = latest(frame)
    said = {BITS: "", CLEAN: ""}
    for chart in charts:
        of_chart = rows[rows["chart"] == chart]
        sparse = of_chart[(of_chart["method"] == method) & (of_chart["sparsity_asked"] == sparsity)]
        dense = of_chart[of_chart["method"] == dense_name]
        pairs = (sparse.groupby("seed")["value"].mean() - dense.groupby("seed")["value"].mean()).dropna()
        if len(pairs):
            what, scale, digits = {CLEAN: ("clean", 100, 1), BITS: ("bits a token", 1, 3)}.get(
                chart, ("robust", 100, 1)
            )
            mean, low, high = (scale * value for value in interval(pairs.tolist()))
            ends = "" if len(pairs) == 1 else f" [{low:+.{digits}f}, {high:+.{digits}f}]"
            said[chart] = f"{what} {mean:+.{digits}f}{ends}".replace("-", "\N{MINUS SIGN}")
    bits = f" Against dense: {said.pop(BITS)}." if said[BITS] else ""
    points = ", ".join(filter(None, said.values()))
    return bits + (f" Against dense, in points: {points}." if points else "")


def _meaning(sweep: Sweep, measured: pd.DataFrame, robust: dict[str, Any] | None) -> str:
    frame, test = sweep.frame, f"test {sweep.samples}"
    said = f"Clean: share of {range_text(measured['n'])} {test} classified correctly."
    if (frame["chart"] == BITS).any():
        said = f"Clean: share of the tokens of {range_text(measured['n'])} {test} whose likeliest is right."
    if robust:
        rows = frame[frame["metric"] == "robust_accuracy"]
        names = ", ".join(sorted(set(rows["attack"]) - {"worst"}))
        norm = "/".join(sorted(set(rows["norm"])))
        sizes = [eps_text(eps) for eps in sorted(set(rows["eps"]))]
        middle = f" (the middle one of {', '.join(sizes)})" if len(sizes) > 1 else ""
        said += (
            f" Robust: share of {robust['n']} {test} still correct under every one of {names}, {norm} eps = "
            f"{eps_text(robust['eps'])}{middle}, {eps_in(rows['norm'])}; a stronger attack may find less."
        )
    most = int(measured["seeds"].max())
    if most < 2:
        return f"{said} One seed: no claim; another seed may order the methods differently."
    return (
        f"{said} ± and [ ] are 95 % Student-t intervals over {most} seeds, differences taken seed by seed; a "
        "difference whose interval contains 0 may be chance."
    )
