"""The results of the sweeps `noise` and `steered`: tables and the figure of docs/examples.md.

    lightning-sparse -cn noise
    lightning-sparse -cn steered
    python benchmarks/examples.py outputs/noise outputs/steered

Text in docs/examples.md between `<!-- NAME -->` and `<!-- /NAME -->` is replaced.
"""

import sys
from pathlib import Path

import pandas as pd
from by_seed import ROOT, write

from lightning_sparse.drawing.style import MARKERS, PALETTE, WIDTH, style
from lightning_sparse.results.jobs import read_jobs
from lightning_sparse.statistics import t_interval


def rows_of(folder: Path) -> pd.DataFrame:
    """Every row of the jobs that are done, with its job's method, data, model, level and seed."""
    jobs, _ = read_jobs(folder)
    return pd.DataFrame([vars(row) for job in jobs if job.status == "done" for row in job.current_rows()])


def cell(values: pd.Series, scale: float = 1.0, digits: int = 3) -> str:
    """Mean and half of the 95 % interval over seeds; another number of seeds than five is said."""
    mean, _, high = t_interval((scale * values).tolist())
    half = f" ± {high - mean:.{digits}f}" if high == high else ""
    return f"{mean:.{digits}f}{half}" + ("" if len(values) == 5 else f" ({len(values)} seeds)")


WINDOWS = {"": "whole training", "early": "first third", "late": "last third"}
CONTROLS = ("input_norm", "random")  # the same in every window


def noise_tables(rows: pd.DataFrame) -> str:
    """AUROC of every score and window at each sparsity, and what was learned by heart, a table for each share of noise."""
    return "\n\n".join(
        f"With {name.partition('noise ')[2].rstrip(')')} of the labels drawn anew:\n\n{noise_table(here)}"
        for name, here in rows.groupby("data")
    )


def noise_table(rows: pd.DataFrame) -> str:
    levels = sorted(set(rows.sparsity_asked))
    lines = [f"| sparsity | {' | '.join(f'{level:g}' for level in levels)} |", "|---" * (len(levels) + 1) + "|"]

    def line(name: str, found: pd.DataFrame, scale: float = 1.0, digits: int = 3) -> None:
        cells = [cell(found[found.sparsity_asked == level].value, scale, digits) for level in levels]
        lines.append(f"| {name} | {' | '.join(cells)} |")

    for metric, name in (
        ("clean_accuracy", "test accuracy, %"),
        ("noise_right_learned", "right labels learned, %"),
        ("noise_wrong_learned", "wrong labels learned, %"),
    ):
        line(name, rows[rows.metric == metric], 100, 1)
    found = rows[rows.metric == "noise_auroc"]
    for condition in found.condition.unique():
        score, _, window = condition.partition(" ")
        if not (window and score in CONTROLS):
            line(f"AUROC of {score}, {WINDOWS[window]}", found[found.condition == condition])
    return "\n".join(lines)


def noise_figure(rows: pd.DataFrame, path: Path) -> None:
    """AUROC against sparsity at the largest noise: all of the training, and its last third."""
    import matplotlib.pyplot as plt

    rows = rows[(rows.metric == "noise_auroc") & (rows.data == max(rows.data))]
    with style():
        figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 2.6), sharey=True, layout="constrained")
        for axes, window in zip(panels, ("", "late"), strict=True):
            for place, score in enumerate(("loss", "vog_loss", "forgetting", "vog_relative", "vog", "random")):
                here = rows[rows.condition == f"{score} {window}".strip()]
                found = [t_interval(group.value.tolist()) for _, group in here.groupby("sparsity_asked")]
                mean, low, high = zip(*found, strict=True)
                axes.plot(mean, MARKERS[place] + "-", color=PALETTE[place], label=score)
                axes.fill_between(range(len(mean)), low, high, color=PALETTE[place], alpha=0.2, linewidth=0)
            levels = sorted(set(rows.sparsity_asked))
            axes.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
            axes.set(title=f"scores of the {WINDOWS[window]}", xlabel="sparsity", ylim=(0.2, 1.02))
        panels[0].set_ylabel("AUROC of wrong labels")
        panels[1].legend(loc="lower right", ncols=2)
        figure.savefig(path, metadata={"Date": None})


def steering_table(rows: pd.DataFrame) -> str:
    """Test accuracy under each steering, and its difference from random and from none, paired by seed."""
    clean = rows[rows.metric == "clean_accuracy"].copy()
    clean["steering"] = clean.model.str.extract(r" by (\w+)\)", expand=False).fillna("none")
    lines = [
        "| sparsity | steering | test accuracy, % | less random, points | less none, points | better than random? |",
        "|---|---|---|---|---|---|",
    ]
    for level, here in clean.groupby("sparsity_asked"):
        by_seed = here.pivot_table(index="seed", columns="steering", values="value")
        order = ["none", "random", *sorted(set(by_seed) - {"none", "random", "oracle"}), "oracle"]
        for name in [name for name in order if name in by_seed]:
            cells = [cell(by_seed[name].dropna(), 100, 1)]
            verdict = ""
            for control in ("random", "none"):
                difference = (100 * (by_seed[name] - by_seed[control])).dropna()
                mean, low, high = t_interval(difference.tolist())
                cells.append("" if name == control else f"{mean:+.1f} ({low:+.1f} to {high:+.1f})")
                if control == "random" and name != "random":
                    verdict = "yes" if low > 0 else "no, worse" if high < 0 else "not shown"
            lines.append(f"| {level:g} | {name} | {' | '.join(cells)} | {verdict} |")
    return "\n".join(lines)


def main(noise: Path, steered: Path) -> None:
    found = rows_of(noise)
    write("examples.md", "noise", noise_tables(found))
    write("examples.md", "steered", steering_table(rows_of(steered)))
    noise_figure(found, ROOT / "docs" / "images" / "noise.svg")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
