"""The tables of docs/biases.md, from the folders of its sweeps.

    lightning-sparse -cn biases
    python benchmarks/biases.py outputs/biases outputs/biases_controls [outputs/biases_mnist ...]

Text in docs/biases.md between `<!-- NAME -->` and `<!-- /NAME -->` is replaced.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

from lightning_sparse.results.jobs import read_jobs
from lightning_sparse.statistics import t_interval

PAGE = Path(__file__).parent.parent / "docs" / "biases.md"
COLUMNS = {
    "clean_accuracy": "accuracy, %",
    "bias_locality_mask": "locality, mask",
    "bias_locality_energy": "locality, w²",
    "bias_radius_energy": "radius, w²",
    "bias_sharing_excess": "sharing over chance",
    "bias_translation_error": "translation error",
    "bias_living_units": "living units",
}
DIGITS = {"clean_accuracy": 1, "bias_living_units": 0}
METHODS = {"dense": "dense", "gradual_pruning": "pruned", "static": "random mask"}


def cell(values: list[float], metric: str) -> str:
    """A mean and half of its interval."""
    if metric == "clean_accuracy":
        values = [100 * value for value in values]
    mean, low, _ = t_interval(values)
    digits = DIGITS.get(metric, 2 if metric.startswith("bias_locality") else 3)
    return f"{mean:.{digits}f}" + ("" if low != low or digits == 0 else f" ± {mean - low:.{digits}f}")


def main(folders: list[str]) -> None:
    found: dict[tuple[str, str, float], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        for job in read_jobs(Path(folder))[0]:
            for row in job.current_rows() if job.status == "done" else ():
                if not row.condition:
                    found[job.data, job.method, job.sparsity_asked][row.metric].append(row.value)
    tables = defaultdict(list)
    for (data, method, asked), rows in sorted(
        found.items(), key=lambda item: (item[0][0], METHODS[item[0][1]], item[0][2])
    ):
        name = data.partition(" ")[0] if data in ("digits", "mnist") else "controls"
        first = f"{METHODS[method]} {asked:g}" if name != "controls" else data.partition("(")[2].rstrip(")")
        cells = [cell(rows[metric], metric) for metric in COLUMNS]
        tables[name].append(f"| {first} | {' | '.join(cells)} |")
    text = PAGE.read_text()
    head = f"| | {' | '.join(COLUMNS.values())} |\n|{'---|' * (len(COLUMNS) + 1)}"
    for name, lines in tables.items():
        text, times = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda found, lines=lines: f"{found[1]}\n" + "\n".join([head, *lines]) + f"\n\n{found[2]}",
            text,
            flags=re.S,
        )
        if not times:
            sys.exit(f"{PAGE} has no <!-- {name} -->")
    PAGE.write_text(text)
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main(sys.argv[1:])
