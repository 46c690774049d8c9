"""The results of the sweeps `noise` and `steered`: tables and the figure of docs/examples.md.

    python benchmarks/examples.py outputs/noise outputs/noise_mnist outputs/steered outputs/steered_clean

of any of these folders; docs/examples.md says which command makes each. Its text between `<!-- NAME -->` and
`<!-- /NAME -->`, with a folder's name, is replaced.
"""

import re
import sys
from pathlib import Path

import pandas as pd
from by_seed import ROOT, table, write

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
        f"With {re.findall(r'noise ([0-9.]+)', name)[0]} of the labels drawn anew:\n\n{noise_table(here)}"
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


ACTIONS = ("drop", "down", "up", "order")


def steering_tables(rows: pd.DataFrame) -> str:
    """Test accuracy under each steering, and its difference from random and from none, paired by seed."""
    clean = rows[rows.metric == "clean_accuracy"].copy()
    clean[["action", "steering"]] = clean.model.str.extract(r"\((\w+) \S+ by (\w+)\)")
    clean = clean.fillna({"action": "", "steering": "none"})
    scores = sorted(set(clean.steering) - {"none", "random", "oracle"})
    names = [name for name in ("none", "random", *scores, "oracle") if name in set(clean.steering)]
    actions = [action for action in ACTIONS if action in set(clean.action)]

    def of(level: float, name: str, action: str) -> pd.Series:
        chosen = (clean.sparsity_asked == level) & (clean.steering == name)
        return 100 * clean[chosen & (clean.action == ("" if name == "none" else action))].set_index("seed").value

    def against(control: str) -> str:
        lines = []
        for level in sorted(set(clean.sparsity_asked)):
            for name in names:
                found = [of(level, name, action) for action in actions]
                if not control:
                    cells = [cell(values, digits=1) for values in found]
                else:
                    pairs = zip(found, actions, strict=True)
                    cells = [difference(values - of(level, control, action)) for values, action in pairs]
                lines += [[f"{level:g}", name, *cells]] if name != control else []
        return table(["sparsity", "steering", *actions], lines)

    return (
        f"Test accuracy, %:\n\n{against('')}\n\nLess random images, treated alike, points:\n\n{against('random')}\n\n"
        f"Less no steering, points:\n\n{against('none')}"
    )


def difference(points: pd.Series) -> str:
    """Mean and 95 % interval over seeds; bold where 0 is not in it."""
    mean, low, high = t_interval(points.dropna().tolist())
    bold = "**" if low > 0 or high < 0 else ""
    return f"{bold}{mean:+.1f} ({low:+.1f} to {high:+.1f}){bold}"


def main(folders: list[Path]) -> None:
    for folder in folders:
        rows = rows_of(folder)
        write("examples.md", folder.name, (steering_tables if "steered" in folder.name else noise_tables)(rows))
        if folder.name == "noise":
            noise_figure(rows, ROOT / "docs" / "images" / "noise.svg")


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
