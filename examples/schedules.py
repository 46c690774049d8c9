"""Every method in one picture: how dense the network is while it trains, and how much of it each update replaces.

python examples/schedules.py
"""

from pathlib import Path

from matplotlib.figure import Figure

from lightning_sparse import (
    ACDC,
    SET,
    SNFS,
    BrainDevelopment,
    Curve,
    DenseSparseDense,
    GradualPruning,
    GraNet,
    GrowAndPrune,
    LotteryTicket,
    OneShot,
    RigL,
    SparseTraining,
    Static,
    plot_schedule,
    schedule_table,
    style,
)

steps = 1000
out = Path("outputs/schedules.png")

# A schedule of your own is put together from holds, jumps, slopes and stairs, and so is its turnover.
stairs = Curve(0.0).stairs(0.75, 0.9, 6)
waves = Curve(0.5).then(0.2, 0.2, "cosine", "grow").then(0.4, 0.8, "exponential", "prune")
waves = waves.then(0.7, 0.6, "cosine", "grow").then(0.9, 0.9, "cosine", "prune").then(1.0, name="rest")
replaced = Curve(0.0).then(0.2).then(0.4, 0.3).then(0.7, 0.0).then(0.9, 0.3).then(0.9, 0.0)

methods = {
    "Static, SNIP, GraSP, SynFlow": Static(0.9),
    "OneShot": OneShot(0.9),
    "DenseSparseDense": DenseSparseDense(0.5),
    "SET": SET(0.9, every=0.05),
    "RigL": RigL(0.9, every=0.05),
    "SNFS": SNFS(0.9, every=0.05),
    "GradualPruning": GradualPruning(0.9),
    "GraNet": GraNet(0.9, every=0.02),
    "ACDC": ACDC(0.9),
    "LotteryTicket": LotteryTicket(0.9),
    "GrowAndPrune": GrowAndPrune(0.9),
    "BrainDevelopment": BrainDevelopment(0.9, every=0.02),
    "exponential": SparseTraining(Curve(0.0).then(0.75, 0.95, "exponential", "prune").then(1.0, name="rest")),
    "stairs": SparseTraining(stairs),
    "a schedule of your own": SparseTraining(waves, turnover=replaced, every=0.02),
}

with style():
    figure = Figure(figsize=(8, 8.5), layout="constrained")
    grid = figure.subplots(5, 3, sharex=True, sharey=True, gridspec_kw={"wspace": 0.03}).flat
    for axes, (name, method) in zip(grid, methods.items(), strict=True):
        plot_schedule(method, steps, axes)
        axes.set_title(name)
        axes.label_outer()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)

print(schedule_table(methods["BrainDevelopment"], steps))
print(f"results: {out}")
