"""The table of docs/ephemeral.md: how robust networks of sparse activations are, and whether it can be believed.

    lightning-sparse -cn ephemeral
    python benchmarks/ephemeral.py outputs/ephemeral

Text in docs/ephemeral.md between `<!-- robust -->` and `<!-- /robust -->` is replaced.
"""

import sys
from pathlib import Path

import pandas as pd
from by_seed import table, write

from lightning_sparse.results.jobs import read_jobs
from lightning_sparse.results.verdicts import has_failed
from lightning_sparse.statistics import t_interval

SMALL, LARGE = 0.0625, 0.125
HEAD = [
    *("weights", "activations", "clean", "robust at 1/16", "at 1/8", "PGD alone at 1/8"),
    *("broken straight through, at 1/8", "numbers that failed the verdict"),
]


def cell(rows: pd.DataFrame) -> str:
    """Mean over seeds and half of the 95 % interval, in percent."""
    if rows.empty or rows.value.isna().any():
        return "not applicable"
    mean, low, high = t_interval((100 * rows.value).tolist())
    return f"{mean:.1f} ± {(high - low) / 2:.1f}"


def main(folder: Path) -> None:
    jobs = [job for job in read_jobs(folder)[0] if job.status == "done"]
    rows = pd.DataFrame([vars(row) for job in jobs for row in job.current_rows()])
    lines = []
    for (level, model), here in rows.groupby(["sparsity_asked", "model"]):
        worst = here[(here.metric == "robust_accuracy") & (here.attack == "worst") & (here.eps > 0)]
        at_large = here[here.eps == LARGE]
        failed = worst.trust.map(has_failed)
        activations = model.partition("(")[2].rstrip(")").replace("_", "-") or "all"
        cells = [
            here[here.metric == "clean_accuracy"],
            worst[worst.eps == SMALL],
            worst[worst.eps == LARGE],
            at_large[(at_large.metric == "robust_accuracy") & (at_large.attack == "pgd")],
            at_large[at_large.metric == "trust_straight_through"],
        ]
        weights = f"{level:g} sparse" if level else "dense"
        lines.append([weights, activations, *map(cell, cells), f"{failed.sum()} of {len(failed)}"])
    write("ephemeral.md", "robust", table(HEAD, lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
