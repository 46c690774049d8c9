"""Which networks are fooled by the adversarial images of which others, as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_sparse.drawing.style import caption
from lightning_sparse.report.words import eps_text
from lightning_sparse.tables.method_names import base, bits_text, dense_of, level_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_sparse.tables.collect import Sweep


def transfer(sweep: Sweep, method: str) -> Figure | None:
    """Heat map of a method: accuracy of each network (columns) on images crafted on each other (rows)."""
    averages = sweep.averages
    of_pair = averages["method"].isin([dense_of(method, sweep.jobs), method])
    kept = averages[(averages["metric"] == "transfer_accuracy") & of_pair]
    # A row names the network that its images were crafted on as that network's own sweep calls it.
    kept = kept[kept["condition"].isin(["dense"]) | kept["condition"].str.startswith(f"{base(method)} ")]
    if kept["condition"].nunique() < 2 or not (kept["method"] == method).any():
        return None
    from matplotlib.figure import Figure

    targets = [level_name(base(line["method"]), line["sparsity_asked"]) for line in kept.to_dict("records")]
    table = kept.assign(target=targets).pivot_table(index="condition", columns="target", values="mean")
    order = sorted(table.columns, key=lambda name: (name != "dense", float(name.split()[-1]) if " " in name else 0.0))
    table = table.reindex(index=order, columns=order)
    size = 0.62 * len(order) + 1.6
    figure = Figure(figsize=(max(size, 4.2), size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(table.to_numpy(), cmap="viridis", vmin=0, vmax=1)
    axes.grid(False)
    short, of = [name.split()[-1] for name in order], "sparsity"
    if method in sweep.compressed:
        short, of = [bits_text(float(name)) if name[0].isdigit() else name for name in short], "bits"
    axes.set_xticks(range(len(order)), labels=short)
    axes.set_yticks(range(len(order)), labels=short)
    for i, row in enumerate(table.to_numpy()):
        for j, value in enumerate(row):
            if value == value:
                color = "white" if value < 0.6 else "black"
                axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", color=color)
    axes.set_xlabel(f"attacked: {of}")
    axes.set_ylabel(f"crafted on: {of}")
    axes.set_title(f"{method}: accuracy, %")
    eps = eps_text(float(kept["eps"].iloc[0]))
    caption(
        figure,
        f"{sweep.name}: accuracy on adversarial images, PGD on the margin at eps = {eps}, n = {int(kept['n'].min())} test "
        "images, mean over seeds. The diagonal is the white box; a column with a lower number elsewhere was attacked too "
        "weakly.",
    )
    return figure
