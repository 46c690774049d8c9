"""The results of the sweep `methods`: the tables and figures of docs/mnist.md, and a table on each method's page.

    python benchmarks/mnist.py outputs/methods outputs/schedules outputs/schedules_search

Text in docs/ between `<!-- mnist: NAME -->` and `<!-- /mnist -->` is replaced; figures go to docs/images/.
"""

import re
import sys
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from lightning_sparse.drawing.style import MARKERS, PALETTE, WIDTH, save, style
from lightning_sparse.report.looks import density_axis
from lightning_sparse.results.jobs import read_jobs
from lightning_sparse.statistics import t_interval

DOCS = Path(__file__).parent.parent / "docs"
NAMES = {
    "static": "Static (random, ERK)",
    "snip": "SNIP",
    "grasp": "GraSP",
    "synflow": "SynFlow",
    "set": "SET",
    "rigl": "RigL",
    "snfs": "SNFS",
    "one_shot": "One-shot",
    "ac_dc": "AC/DC",
    "grow_and_prune": "Grow and prune",
    "gradual_pruning": "Gradual pruning",
    "granet": "GraNet",
    "brain_development": "Brain development",
    "brain_development-best": "Brain development, as searched",
    "gradual_pruning-best": "Gradual pruning, as searched",
    "gradual_pruning-half_the_steps": "Gradual pruning, half the steps",
    "dense_sparse_dense": "Dense-sparse-dense",
    "lottery_ticket": "Lottery ticket",
    "random_reinit": "Random reinit of the ticket",
}
GROUPS = {
    "sparse from birth": ["static", "snip", "grasp", "synflow", "set", "rigl", "snfs"],
    "dense at some time": ["one_shot", "ac_dc", "grow_and_prune", "gradual_pruning", "granet", "brain_development"],
    "lottery ticket: four trainings": ["lottery_ticket", "random_reinit", "gradual_pruning"],
}


def collect(folder: Path) -> pd.DataFrame:
    """One line per finished job: test and validation accuracy, and what the training cost."""
    rows = []
    for job in read_jobs(folder)[0]:
        if job.status != "done":
            continue
        accuracy = next(row.value for row in job.current_rows() if row.metric == "clean_accuracy")
        flops, steps = cost(job.checkpoint)
        rows.append(
            {
                "method": job.method,
                "model": job.model,
                "sparsity": job.sparsity_asked,
                "seed": job.seed,
                "accuracy": accuracy,
                "validation": job.objective,
                "flops": flops,
                "steps": steps,
            }
        )
    return pd.DataFrame(rows)


def cost(checkpoint: Path) -> tuple[float, int]:
    """FLOPs of the training as a share of a dense one of as many steps, and its steps.

    A multilayer perceptron takes two FLOPs per weight and sample in the forward pass, and as many for each of the two
    gradients. A step whose update reads the gradients of dead connections needs them all (Evci et al. 2020, appendix H).
    """
    content = torch.load(checkpoint, weights_only=False, map_location="cpu")
    steps = content["global_step"]
    state = next((s for key, s in content["callbacks"].items() if key.startswith("lightning_sparse[")), None)
    if state is None:
        return 1.0, steps
    spent, density, before = 0.0, 1.0, 0
    for update in state["history"]:
        spent += density * (update["step"] - before)
        if update["born"] and state["recipe"]["grow"] != "random" and update["sparsity"] > 0 and update["step"]:
            spent += (1.0 - density) / 3
        density, before = 1.0 - update["sparsity"], update["step"]
    if state["recipe"]["grow"] == "momentum" and state["recipe"]["turnover"]["start"] > 0:
        return (spent + density * (steps - before)) * 2 / 3 / steps + 1 / 3, steps  # dense gradients at every step
    return (spent + density * (steps - before)) / steps, steps


def percent(values: "pd.Series[float]") -> str:
    """Mean and half of the 95 % interval over seeds, in percent."""
    mean, low, high = t_interval(list(values))
    return f"{100 * mean:.2f} ± {50 * (high - low):.2f}"


def paired(frame: pd.DataFrame, method: str, other: str, sparsity: float) -> str:
    """Difference to another method at the same seeds, in points, with its 95 % interval."""
    one = frame[(frame.method == method) & (frame.sparsity == sparsity)].set_index("seed").accuracy
    at = 0.0 if other == "dense" else sparsity
    two = frame[(frame.method == other) & (frame.sparsity == at)].set_index("seed").accuracy
    mean, low, high = t_interval(list((one - two).dropna()))
    if mean != mean:  # no seed has both
        return ""
    return f"{100 * mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


def accuracy_table(frame: pd.DataFrame) -> str:
    """Every method at every sparsity."""
    levels = sorted(set(frame.sparsity) - {0.0})
    lines = [
        "| method | " + " | ".join(f"{s:g}" for s in levels) + " | training FLOPs at 0.98, of dense |",
        "|---" * (len(levels) + 2) + "|",
    ]
    dense = frame[frame.method == "dense"]
    lines.append(f"| dense | {percent(dense.accuracy)} |" + " |" * (len(levels) - 1) + " 1.00 |")
    means = frame[frame.sparsity == 0.98].groupby("method").accuracy.mean()
    for method in sorted((m for m in NAMES if m in set(frame.method)), key=lambda m: means.get(m, 0.0)):
        here = frame[frame.method == method]
        cells = [percent(cell.accuracy) if len(cell := here[here.sparsity == s]) else "" for s in levels]
        at = here[here.sparsity == 0.98]
        flops = f"{at.flops.mean() * at.steps.mean() / dense.steps.mean():.2f}" if len(at) else ""
        lines.append(f"| {NAMES[method]} | " + " | ".join(cells) + f" | {flops} |")
    return "\n".join(lines)


def difference_table(frame: pd.DataFrame, pairs: list[tuple[str, str]]) -> str:
    """Paired differences in points, at each sparsity."""
    levels = sorted(set(frame.sparsity) - {0.0})
    lines = [
        "| difference, in points | " + " | ".join(f"{s:g}" for s in levels) + " |",
        "|---" * (len(levels) + 1) + "|",
    ]
    names = {"dense": "dense", **NAMES}
    for method, other in pairs:
        cells = [paired(frame, method, other, s) for s in levels]
        lines.append(f"| {names[method]} - {names[other]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def accuracy_figure(frame: pd.DataFrame) -> Figure:
    """Test error against density, three groups of methods, with bands of 95 % over seeds."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    dense_mean, dense_low, dense_high = t_interval(list(frame[frame.method == "dense"].accuracy))
    for axes, (title, methods) in zip(figure.subplots(1, 3, sharey=True), GROUPS.items(), strict=True):
        axes.axhspan(100 * (1 - dense_high), 100 * (1 - dense_low), color="0.85", zorder=0)
        axes.axhline(100 * (1 - dense_mean), color="black", linewidth=1, label="dense, and its interval")
        for i, method in enumerate(m for m in methods if m in set(frame.method)):
            points = frame[frame.method == method].groupby("sparsity").accuracy.apply(lambda v: t_interval(list(v)))
            colour = PALETTE[i % len(PALETTE)] if i < len(PALETTE) else "0.45"
            density = [1 - s for s in points.index]
            mean, low, high = ([100 * (1 - p[k]) for p in points] for k in range(3))
            axes.plot(density, mean, color=colour, marker=MARKERS[i % len(MARKERS)], label=NAMES[method])
            axes.fill_between(density, low, high, color=colour, alpha=0.16, linewidth=0)
        density_axis(axes, sorted(set(frame.sparsity) - {0.0}))
        axes.set_yscale("log")
        axes.set_title(title)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g} %" if round(value) in (2, 3, 5) else "")
        axes.set_xlabel("density (below it: sparsity)")
        axes.legend(frameon=False, fontsize=6.5, loc="upper left")
    figure.supylabel("test error", fontsize=8)
    return figure


def flops_figure(frame: pd.DataFrame, level: float = 0.98) -> Figure:
    """Test error at one sparsity against what the training costs."""
    figure = Figure(figsize=(WIDTH * 0.7, 3.6), layout="constrained")
    axes = figure.subplots()
    dense = frame[frame.method == "dense"]
    axes.axhline(100 * (1 - dense.accuracy.mean()), color="black", linewidth=1)
    for i, (method, name) in enumerate((m, n) for m, n in NAMES.items() if not m.endswith("-best")):
        here = frame[(frame.method == method) & (frame.sparsity == level)]
        if here.empty or method == "dense_sparse_dense":
            continue
        mean, low, high = (100 * (1 - value) for value in t_interval(list(here.accuracy)))
        x = here.flops.mean() * here.steps.mean() / dense.steps.mean()
        axes.errorbar(
            x, mean, [[mean - high], [low - mean]], color=PALETTE[i % 6], marker=MARKERS[i // 6 % 6], capsize=2
        )
        below = method in ("grow_and_prune", "gradual_pruning", "synflow")
        place = {"xytext": (-4, -10), "ha": "right"} if below else {"xytext": (5, 3), "ha": "left"}
        axes.annotate(name, (x, mean), textcoords="offset points", fontsize=6.5, **place)
    axes.set_xscale("log")
    axes.set_xlim(0.01, 5)
    axes.set_yscale("log")
    axes.set_xlabel("training FLOPs, as a share of dense")
    axes.set_ylabel(f"test error at sparsity {level:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g} %" if round(value) in (2, 3, 5) else "")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return figure


def variants(frame: pd.DataFrame) -> str:
    """The ablations: each variant of brain development at each sparsity, and its difference to the whole."""
    levels = sorted(set(frame.sparsity))
    lines = [
        "| variant | " + " | ".join(f"{s:g} | difference" for s in levels) + " | training FLOPs |",
        "|---" * (2 * len(levels) + 2) + "|",
    ]
    for method in sorted(set(frame.method), key=lambda m: -frame[frame.method == m].accuracy.mean()):
        here = frame[frame.method == method]
        cells = [
            f"{percent(here[here.sparsity == s].accuracy)} | {paired(frame, method, 'brain_development-whole', s)}"
            for s in levels
        ]
        lines.append(
            f"| {method.removeprefix('brain_development-').replace('_', ' ')} | "
            + " | ".join(cells)
            + f" | {here.flops.mean():.2f} |"
        )
    return "\n".join(lines)


def search_table(frame: pd.DataFrame, most: int = 8) -> str:
    """The settings of the search, best validation accuracy first."""
    means = frame.groupby("method").agg(
        validation=("validation", "mean"), flops=("flops", "mean"), seeds=("seed", "count")
    )
    lines = ["| setting | validation accuracy | training FLOPs |", "|---|---|---|"]
    best = means.sort_values("validation", ascending=False)
    for method, row in pd.concat([best.head(most), best.tail(2)]).iterrows():
        lines.append(f"| {method} | {100 * row.validation:.2f} | {row.flops:.2f} |")
    return "\n".join(lines)


def method_line(frame: pd.DataFrame, method: str) -> str:
    """What a method's page says about the study."""
    levels = [s for s in sorted(set(frame.sparsity)) if len(frame[(frame.method == method) & (frame.sparsity == s)])]
    lines = ["| sparsity | test accuracy | to dense, in points | to gradual pruning, in points |", "|---|---|---|---|"]
    for s in levels:
        here = frame[(frame.method == method) & (frame.sparsity == s)]
        gradual = "" if method == "dense_sparse_dense" else paired(frame, method, "gradual_pruning", s)
        lines.append(f"| {s:g} | {percent(here.accuracy)} | {paired(frame, method, 'dense', s)} | {gradual} |")
    return "\n".join([*lines, "", "LeNet-300-100, five seeds, 95 % intervals: [the whole study](../mnist.md)."])


def fill(name: str, text: str) -> None:
    """Put text between the markers of this name, wherever in docs/ they stand."""
    for page in DOCS.rglob("*.md"):
        old = page.read_text()
        pattern = rf"(<!-- mnist: {name} -->\n).*?(<!-- /mnist -->)"
        new = re.sub(pattern, lambda match: f"{match[1]}\n{text}\n\n{match[2]}", old, flags=re.DOTALL)
        if new != old:
            page.write_text(new)


def main(folders: list[str]) -> None:
    """Read the sweeps' folders and write everything."""
    main_frame = collect(Path(folders[0]))
    everything = main_frame
    main_frame = main_frame[main_frame.method != "dense_sparse_dense"]  # its sparsity is that of its middle
    fill("accuracy", accuracy_table(main_frame))
    best = [
        ("brain_development", "gradual_pruning"),
        ("brain_development-best", "gradual_pruning-best"),
        ("granet", "gradual_pruning-half_the_steps"),
        ("grow_and_prune", "gradual_pruning-half_the_steps"),
    ]
    fill("brain", difference_table(main_frame, best))
    pairs = [("rigl", "set"), ("set", "static"), ("rigl", "static"), ("snfs", "rigl"), ("synflow", "static")]
    fill("from birth", difference_table(main_frame, pairs))
    against = ["brain_development", "granet", "ac_dc", "grow_and_prune", "one_shot", "rigl"]
    fill("against gradual", difference_table(main_frame, [(m, "gradual_pruning") for m in against]))
    tickets = [("lottery_ticket", "random_reinit"), ("lottery_ticket", "gradual_pruning"), ("lottery_ticket", "dense")]
    fill("tickets", difference_table(main_frame, tickets))
    close = ["gradual_pruning", "granet", "brain_development", "ac_dc", "one_shot", "rigl"]
    fill("against dense", difference_table(main_frame, [(m, "dense") for m in close]))
    for method in NAMES:
        if method in set(everything.method):
            fill(method, method_line(everything, method))
    with style():
        save(accuracy_figure(main_frame), DOCS / "images" / "mnist_accuracy")
        save(flops_figure(main_frame), DOCS / "images" / "mnist_flops")
    for folder, name, table in zip(folders[1:], ("ablation", "search"), (variants, search_table), strict=False):
        fill(name, table(collect(Path(folder))))
    print(accuracy_table(main_frame))


if __name__ == "__main__":
    main(sys.argv[1:] or ["outputs/methods"])
