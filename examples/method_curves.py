"""The pictures of docs/methods: how dense each method keeps the network, and what each update replaces.

python examples/method_curves.py
"""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from lightning_sparse import (
    ACDC,
    SET,
    SNFS,
    SNIP,
    BrainDevelopment,
    DenseSparseDense,
    GradualPruning,
    GraNet,
    GraSP,
    GrowAndPrune,
    IterativePruning,
    LotteryTicket,
    OneShot,
    RigL,
    Static,
    SynFlow,
    style,
)

steps = 2000
out = Path(__file__).parents[1] / "docs" / "images" / "methods"

methods = {
    "static": Static(0.9),
    "one_shot": OneShot(0.9),
    "gradual_pruning": GradualPruning(0.9),
    "snip": SNIP(0.9),
    "grasp": GraSP(0.9),
    "synflow": SynFlow(0.9),
    "set": SET(0.9),
    "rigl": RigL(0.9),
    "snfs": SNFS(0.9),
    "granet": GraNet(0.9),
    "ac_dc": ACDC(0.9),
    "dense_sparse_dense": DenseSparseDense(),
    "iterative_pruning": IterativePruning(0.9),
    "lottery_ticket": LotteryTicket(0.9),
    "grow_and_prune": GrowAndPrune(0.9),
    "brain_development": BrainDevelopment(0.9),
}

out.mkdir(parents=True, exist_ok=True)
with style():
    matplotlib.rcParams["svg.fonttype"] = "none"  # small files: the reader's own font
    for name, method in methods.items():
        figure = Figure(figsize=(5.4, 2.2))
        axes = figure.add_axes((0.09, 0.2, 0.87, 0.76))  # by hand, so that no font moves the lines
        method.plot(steps, axes)
        axes.lines[0].set_gid("density")
        for bars in axes.collections[1:]:
            bars.set_gid("turnover")
        figure.savefig(out / f"{name}.svg", metadata={"Date": None, "Creator": None})

print(f"results: {out}")
