"""The results of the sweeps `noise` and `steered`: the tables of docs/examples.md.

    lightning-sparse -cn noise
    lightning-sparse -cn steered
    python benchmarks/examples.py outputs/noise outputs/steered

Text in docs/examples.md between `<!-- examples: NAME -->` and `<!-- /examples -->` is replaced.
"""

import re
import sys
from pathlib import Path

import pandas as pd

from lightning_sparse.results.jobs import read_jobs
from lightning_sparse.statistics import t_interval

PAGE = Path(__file__).parent.parent / "docs" / "examples.md"


def rows_of(folder: Path) -> pd.DataFrame:
    """Every row of the jobs that are done, with its job's method, data, model, level and seed."""
    jobs, _ = read_jobs(folder)
    return pd.DataFrame([vars(row) for job in jobs if job.status == "done" for row in job.current_rows()])


def cell(values: pd.Series, scale: float = 1.0, digits: int = 3) -> str:
    """Mean and half of the 95 % interval over seeds; another number of seeds than five is said."""
    mean, _, high = t_interval((scale * values).tolist())
    half = f" ± {high - mean:.{digits}f}" if high == high else ""
    return f"{mean:.{digits}f}{half}" + ("" if len(values) == 5 else f" ({len(values)} seeds)")


def noise_table(rows: pd.DataFrame) -> str:
    """AUROC of every score and window, and what was learned by heart, for each noise and sparsity."""
    networks = sorted(set(zip(rows.data, rows.sparsity_asked, strict=True)))
    heads = [f"{data.partition('(')[2].rstrip(')')}, sparsity {level:g}" for data, level in networks]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]

    def line(name: str, found: pd.DataFrame, scale: float = 1.0, digits: int = 3) -> str:
        cells = [
            cell(found[(found.data == data) & (found.sparsity_asked == level)].value, scale, digits)
            for data, level in networks
        ]
        return f"| {name} | {' | '.join(cells)} |"

    for metric, name in (
        ("clean_accuracy", "test accuracy, %"),
        ("noise_right_learned", "right labels learned, %"),
        ("noise_wrong_learned", "wrong labels learned, %"),
    ):
        lines.append(line(name, rows[rows.metric == metric], 100, 1))
    found = rows[rows.metric == "noise_auroc"]
    lines += [line(f"AUROC: {name}", found[found.condition == name]) for name in found.condition.unique()]
    return "\n".join(lines)


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
    text = PAGE.read_text()
    for name, content in (("noise", noise_table(rows_of(noise))), ("steered", steering_table(rows_of(steered)))):
        pattern = rf"(<!-- examples: {name} -->).*?(<!-- /examples -->)"
        text = re.sub(pattern, lambda m, c=content: f"{m[1]}\n\n{c}\n\n{m[2]}", text, flags=re.S)
    PAGE.write_text(text)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
