"""What every figure shows, before anything is drawn: its numbers, its panels and its caption.

The printed figures and those of the page are both made from it, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any

from lightning_sparse.report.captions import attacks, cells, marks, subject
from lightning_sparse.report.looks import looks
from lightning_sparse.report.words import eps_text, name_of
from lightning_sparse.results.layer_sensitivity import CHANGE
from lightning_sparse.results.norms import eps_in
from lightning_sparse.results.quantities import BIASES, QUANTITIES, SALIENCY, WHY, WORDS, Limits, quantity
from lightning_sparse.tables.frames import accuracies
from lightning_sparse.tables.method_names import OF_BITS, base, is_dense, level_name
from lightning_sparse.tables.pareto import against, pareto

if TYPE_CHECKING:
    import pandas as pd

    from lightning_sparse.tables.collect import Sweep

DENSITY, EPS, KILOBITS, TIME, KILOBYTES = "density", "eps", "kilobits", "time", "kilobytes"
LAYERS = "layers"
X_NAMES = {
    DENSITY: "density (below it: sparsity)",
    EPS: "eps",
    KILOBITS: "description length, kilobits",
    TIME: "time / dense, of the fastest form",
    KILOBYTES: "kilobytes, of the smallest form",
    LAYERS: "sparsity of the layer, %",
}
ALL, COLUMN, NONE = "all", "column", "none"  # which panels share their y axis


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: its title.
        lines: of :func:`~lightning_sparse.tables.averages.over_seeds`, with a column named like the figure's x; in a Pareto
            figure ``front`` marks those on the front. In a heat map of layers ``condition`` names layer and sparsity.
    """

    title: str
    lines: pd.DataFrame

    @property
    def limits(self) -> Limits:
        """The smallest and largest value that the quantity can have; intervals are clipped to them."""
        return quantity(self.lines["metric"].iloc[0]).limits


@dataclass(frozen=True)
class Contents:
    """One figure.

    Attributes:
        x: name of the x axis: one of :data:`X_NAMES`.
        y: title of the y axis of all panels.
        rows: panels by the name of their row; a single row without a name is broken where there is no more room.
        caption: the caption.
        shown: the lines of all panels, for notes on trust and seeds.
        unit: how the y axis is printed: ``"%"``, ``"points"`` (of percent, with a sign) or empty.
        same_y: which panels share their y axis: ``"all"``, ``"column"`` or ``"none"``.
        y_range: ends of the y axis; found from the numbers if None.
    """

    x: str
    y: str
    rows: dict[str, list[Panel]]
    caption: str
    shown: pd.DataFrame
    unit: str = ""
    same_y: str = ALL
    y_range: Limits | None = None

    @property
    def panels(self) -> list[Panel]:
        """The panels of all rows."""
        return [panel for row in self.rows.values() for panel in row]


def robustness(sweep: Sweep) -> Contents | None:
    """Clean accuracy and worst-case robust accuracy at each eps, against density; None if neither was measured."""
    kept = accuracies(sweep.averages)
    if kept.empty:
        return None
    charts = kept.sort_values(["attack", "eps"]).drop_duplicates("chart").to_dict("records")
    # From 0 if attacks bring accuracy down; clean accuracy alone would be a line at the top.
    bottom = -0.02 if kept["attack"].any() else max(-0.02, kept["mean"].min() - 0.05)
    return Contents(
        DENSITY,
        f"test {sweep.samples} still classified correctly",
        {"": [Panel(name_of(c["metric"], c["attack"], c["eps"]), _of(kept, c["chart"])) for c in charts]},
        f"{subject(sweep, kept)} {attacks(sweep.frame)} {marks(kept)}",
        kept,
        unit="%",
        y_range=(bottom, 1.02),
    )


def security_curves(sweep: Sweep) -> Contents | None:
    """Robust accuracy against eps: one panel per method, one line per sparsity, dense in black."""
    kept = accuracies(sweep.averages).fillna({"eps": 0.0})
    if not (kept["attack"] == "worst").any():
        return None
    methods = list(looks(kept["method"])) or ["dense"]
    dense = kept["method"].map(is_dense).astype(bool)
    panels = [Panel(method, kept[dense | (kept["method"] == method)].sort_values("eps")) for method in methods]
    said = f"{subject(sweep, kept)} {attacks(sweep.frame)} {marks(kept, curves=True)}"
    return Contents(EPS, "robust accuracy", {"": panels}, said, kept, unit="%", y_range=(-0.02, 1.02))


def differences(sweep: Sweep) -> Contents | None:
    """Accuracy minus that of dense, seed by seed, clean and at each eps, against density; None without dense networks."""
    averages = sweep.averages
    kept = averages[averages["metric"].isin(["difference_clean_accuracy", "difference_robust_accuracy"])]
    if kept.empty:
        return None
    panels = []
    for chart in kept.sort_values(["metric", "eps"]).drop_duplicates("chart").to_dict("records"):
        robust = chart["metric"] == "difference_robust_accuracy"
        title = f"robust, eps = {eps_text(chart['eps'])}" if robust else "clean"
        panels.append(Panel(title, _of(kept, chart["chart"])))
    return Contents(
        DENSITY,
        "points of accuracy, less dense of the same seed",
        {"": panels},
        f"{subject(sweep, kept)} The same {sweep.samples} for both networks of every pair. {marks(kept)}",
        kept,
        unit="points",
    )


def saliency(sweep: Sweep) -> Contents | None:
    """Gini index, insertion - deletion gap and agreement with dense against density, one row per attribution."""
    averages = sweep.averages
    kept = averages[averages["metric"].isin(_with_panel(SALIENCY)) & (averages["attribution"] != "input")]
    if kept.empty:
        return None
    same = kept["condition"] == "same images"
    # Over the same images if that was computed; agreement is over the same images anyway.
    kept = kept[same | ~kept["metric"].isin(kept.loc[same, "metric"])]
    kept = kept.assign(density=1 - kept["sparsity_asked"])
    rows = {
        str(attribution).replace("_", " "): [
            Panel(name_of(metric), lines[lines["metric"] == metric])
            for metric in _with_panel(SALIENCY)
            if (kept["metric"] == metric).any()
        ]
        for attribution, lines in kept.groupby("attribution")
    }
    said = (
        f"{subject(sweep, kept)} Gini index: 0 spread out, 1 concentrated. Insertion - deletion gap: 0 is a random "
        f"order of pixels. Max-sensitivity: how far a map moves under small noise, lower is better. Agreement: rank "
        f"correlation with the map of the dense network (the dense line: between dense seeds). {marks(kept)}"
    )
    return Contents(DENSITY, "", rows, said, kept, same_y=COLUMN)


def stability(sweep: Sweep) -> Contents | None:
    """Corruptions, shifts and curvature against density; None if none was measured."""
    return _panel_each(sweep, WHY)


def biases(sweep: Sweep) -> Contents | None:
    """Locality, weight sharing, small shifts and memory against density; None if none was measured."""
    return _panel_each(sweep, BIASES)


def language(sweep: Sweep) -> Contents | None:
    """Bits a token and perplexity against density; None if no language model was measured."""
    return _panel_each(sweep, WORDS)


def _panel_each(sweep: Sweep, heading: str) -> Contents | None:
    """A panel for each quantity of a heading that is defined somewhere."""
    averages = sweep.averages
    kept = averages[averages["metric"].isin(_with_panel(heading)) & averages["mean"].notna()]
    if kept.empty:
        return None
    charts = kept.drop_duplicates("metric").set_index("metric")["chart"]
    shown = [quantity(metric) for metric in _with_panel(heading) if metric in charts]
    panels = [Panel(known.name, _of(kept, charts[known.metric])) for known in shown]
    told = " ".join(f"{known.name[0].upper()}{known.name[1:]}: {known.says}" for known in shown)
    of_weights = kept["metric"].str.startswith(
        ("living_rows", "isotropy_", "word_")
    )  # whose n are rows, or pairs of words
    of_images = kept[(kept["n"] > 0) & ~of_weights]  # the others are of weights alone
    return Contents(DENSITY, "", {"": panels}, f"{subject(sweep, of_images)} {told} {marks(kept)}", kept, same_y=NONE)


def sensitivity(sweep: Sweep) -> Contents | None:
    """What pruning one layer alone costs, a heat map for each method; None if it was not measured.

    Shown are the networks of the lowest sparsity, the dense ones if there are any: a heat map for every level would be too
    many, and a layer that is sparse already loses nothing until it is pruned further.
    """
    averages = sweep.averages
    found = averages[(averages["metric"] == CHANGE) & averages["mean"].notna()]
    lowest = found["sparsity_asked"].min()
    kept = found[found["sparsity_asked"] == lowest]
    if kept.empty:
        return None
    rows = sweep.frame[(sweep.frame["metric"] == CHANGE) & (sweep.frame["sparsity_asked"] == lowest)]
    place = {condition: i for i, condition in enumerate(rows["condition"].unique())}  # the network's order of layers
    kept = kept.sort_values("condition", key=lambda conditions: conditions.map(place))
    panels = [Panel(level_name(method, level), lines) for method, level, lines in by_level(kept)]
    said = f"{subject(sweep, kept)} {cells(kept, rows['detail'])}"
    said += " Sparser networks: records.csv." if len(kept) < len(found) else ""
    return Contents(LAYERS, "", {"": panels}, said, kept, unit="points")


def cost(sweep: Sweep) -> Contents | None:
    """Bits of the model's description against robust accuracy, with the front; None if one of the two is missing."""
    sizes = pareto(sweep.averages)
    if not sizes:
        return None
    import pandas as pd

    worst = pd.concat(sizes)
    panels = [Panel(f"eps = {eps_text(points['eps'].iloc[0])}", points) for points in sizes]
    said = (
        f"{subject(sweep, worst)} Bits: mask, values, the rest of the parameters, and the training labels given the model. "
        "Grey: the Pareto front, which no other network beats in both. Hollow: a check of trust failed. Means over seeds."
    )
    y = "robust accuracy, worst case"
    return Contents(KILOBITS, y, {"": panels}, said, worst, unit="%", y_range=(-0.02, 1.02))


def time(sweep: Sweep) -> Contents | None:
    """Time as a share of dense against clean and robust accuracy, one row per batch size; None if nothing was timed."""
    averages = sweep.averages
    times = averages[averages["metric"].str.startswith("cost_latency_") & (averages["metric"] != "cost_latency_noise")]
    # A narrower dense network is timed beside a copy of itself, like every network: its ratio is not to the dense one.
    times = times[times["method"].map(base) != "small_dense"]
    by_size = sorted((int(lines["n"].iloc[0]), lines) for _, lines in times.groupby("condition"))
    rows = {f"batch {size}": _panels(against(averages, lines, TIME)) for size, lines in by_size}
    forms = sorted(set(times["metric"].str.removeprefix("cost_latency_")))
    noise = sweep.frame.loc[sweep.frame["metric"] == "cost_latency_noise", "value"]
    said = (
        f"Time of a forward pass, as a ratio to a dense copy timed in the same run; of each network its fastest form "
        f"({', '.join(forms)}). Noise: a second dense copy took {noise.min():.2f} to {noise.max():.2f} of the first."
    )
    return _fronts(sweep, TIME, rows, said)


def size(sweep: Sweep) -> Contents | None:
    """Bytes of the exported networks against clean and robust accuracy; None if none was exported."""
    averages = sweep.averages
    sizes = averages[averages["metric"].str.startswith("cost_size_")]
    forms = sorted(set(sizes["metric"].str.removeprefix("cost_size_")))
    most = sizes.loc[sizes["metric"] == "cost_size_model", "mean"].max() / 1e3
    said = (
        f"Bytes of a file, or of a module's tensors; of each network its smallest form ({', '.join(forms)}). Model: as it "
        f"was trained, {most:.4g} kB at most."
    )
    return _fronts(sweep, KILOBYTES, {"": _panels(against(averages, sizes, KILOBYTES, 1e-3))}, said)


def _panels(tables: list[pd.DataFrame]) -> list[Panel]:
    found = [(points, points.iloc[0]) for points in tables]
    return [Panel(name_of(of["metric"], of["attack"], of["eps"]), points) for points, of in found]


def _fronts(sweep: Sweep, x: str, rows: dict[str, list[Panel]], said: str) -> Contents | None:
    import pandas as pd

    rows = {name: panels for name, panels in rows.items() if panels}
    if not rows:
        return None
    shown = pd.concat([panel.lines for panels in rows.values() for panel in panels])
    ends = "Grey: the Pareto front, which no other network beats in both. Hollow: a check of trust failed. Means over seeds."
    return Contents(x, "", rows, f"{subject(sweep, shown)} {said} {ends}", shown, unit="%", same_y=COLUMN)


FIGURES: dict[str, Callable[[Sweep], Contents | None]] = {
    "robustness": robustness,
    "language": language,
    "security_curves": security_curves,
    "differences": differences,
    "saliency": saliency,
    "stability": stability,
    "biases": biases,
    "sensitivity": sensitivity,
    "pareto": cost,
    "pareto_time": time,
    "pareto_size": size,
}


def x_name(contents: Contents, sweep: Sweep) -> str:
    """The words at the x axis."""
    if contents.x == EPS:
        return f"{X_NAMES[EPS]}: {eps_in(contents.shown['norm'])}"
    return OF_BITS if contents.x == DENSITY and sweep.by_bits else X_NAMES[contents.x]


def by_level(lines: pd.DataFrame) -> list[tuple[str, float, pd.DataFrame]]:
    """The lines of each method and sparsity: dense first, then denser before sparser."""
    grouped: Any = lines.groupby(["method", "sparsity_asked"])
    found = [(str(method), float(asked), level) for (method, asked), level in grouped]
    return sorted(found, key=lambda level: (not is_dense(level[0]), level[1], level[0]))


def clip(value: float, limits: Limits) -> float:
    """Clip the end of an interval to the quantity's limits; NaN stays.

    Example:
        >>> clip(1.2, (0.0, 1.0))
        1.0
    """
    return value if isnan(value) else min(max(value, limits[0]), limits[1])


def _with_panel(heading: str) -> list[str]:
    return [described.metric for described in QUANTITIES if described.panel and described.heading == heading]


def _of(kept: pd.DataFrame, chart: str) -> pd.DataFrame:
    return kept[kept["chart"] == chart].assign(density=lambda lines: 1 - lines["sparsity_asked"])
