"""The results of the sweeps `six` and `six_mnist`: tables of docs/compression.md.

    lightning-sparse -cn six
    python benchmarks/compression.py outputs/six

Text in docs/compression.md between `<!-- six: NAME -->` and `<!-- /six -->` is replaced, of `six_mnist` likewise if
the page has such marks; figures of `six` go to docs/images/.
"""

import re
import shutil
import sys
from pathlib import Path

import pandas as pd

DOCS = Path(__file__).parent.parent / "docs"
NAMES = {
    "half": "16 bits, coded",
    "narrow": "down-sizing",
    "svd": "SVD",
    "tensor_train": "tensor train",
    "prune": "sparsification",
    "quantise": "quantisation",
    "share": "sharing",
    "deep_compression": "pruned, shared, coded",
}
TABLES = {
    "accuracy": "clean/accuracy",
    "robust": "robust/worst/eps=0.0625",
    "explanations": "saliency/gradient/dense_agreement",
    "time of one": "cost/latency_model/batch=1",
    "time of many": "cost/latency_model/batch=128",
}
FIGURES = {"robustness": "six_robustness"}


def table(frame: pd.DataFrame, column: str) -> str:
    """Every technique at every size, in percent."""
    sizes = sorted({size for size in frame[frame.method != "half"].bits_asked if size < 1}, reverse=True)
    lines = [f"| technique | {' | '.join(f'{size:g}' for size in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    dense = frame[frame.method == "dense"]
    if dense[column].notna().any():
        lines.append(f"| dense, 32 bits (1.0) | {cell(dense, column)} |" + " |" * (len(sizes) - 1))
    for method, name in NAMES.items():
        here = frame[frame.method == method]
        if here.empty:
            continue
        if method == "half":
            lines.append(f"| {name} ({here.bits.iloc[0]:.2f}) | {cell(here, column)} |" + " |" * (len(sizes) - 1))
            continue
        cells = [cell(here[here.bits_asked == size], column) for size in sizes]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(rows: pd.DataFrame, column: str) -> str:
    """Mean and half of the 95 % interval over seeds, in percent (times are ratios); says so if seeds are missing."""
    if rows.empty or rows[column].isna().all():
        return "-"
    row = rows.iloc[0]
    seeds = "" if row.seeds == 5 else f" ({row.seeds:g} seeds)"
    half = row[f"{column} ±"]
    scale, digits = (1, 2) if "latency" in column else (100, 1)
    interval = f" ± {scale * half:.{digits}f}" if half == half else ""
    return f"{scale * row[column]:.{digits}f}{interval}{seeds}"


def achieved(frame: pd.DataFrame) -> str:
    """The sizes that came out, as a share of those asked for, lowest to highest."""
    here = frame[frame.method.isin(NAMES) & (frame.method != "half")]
    shares = here.bits / here.bits_asked
    return f"{shares.min():.2f} to {shares.max():.2f}"


def main(folder: Path) -> None:
    frame = pd.read_csv(folder / "table.csv")
    page = DOCS / "compression.md"
    text = page.read_text()
    sweep = folder.resolve().name
    found = {name: f"\n\n{table(frame, column)}\n\n" for name, column in TABLES.items() if column in frame}
    found["achieved"] = achieved(frame)
    for name, content in found.items():
        text = re.sub(
            rf"(<!-- {sweep}: {name} -->).*?(<!-- /{sweep} -->)", lambda m, c=content: m[1] + c + m[2], text, flags=re.S
        )
    page.write_text(text)
    for figure, name in FIGURES.items() if sweep == "six" else ():
        shutil.copy(folder / "figures" / f"{figure}.svg", DOCS / "images" / f"{name}.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
