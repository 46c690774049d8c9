"""The tables of docs/biases.md, from the folders of its sweeps.

    lightning-sparse -cn biases
    python benchmarks/biases.py outputs/biases outputs/biases_controls [outputs/biases_pooling ...]

Text in docs/biases.md between `<!-- NAME -->` and `<!-- /NAME -->` is replaced.
"""

import sys
from collections import defaultdict
from pathlib import Path

from by_seed import table, write

from lightning_sparse.results.jobs import read_jobs
from lightning_sparse.statistics import t_interval

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


POOLING = {
    "clean_accuracy": "accuracy, %",
    "shift_consistency": "same class under shifts",
    "bias_translation_error": "translation error",
}


def main(folders: list[str]) -> None:
    found: dict[tuple[str, str, str, float], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        for job in read_jobs(Path(folder))[0]:
            for row in job.current_rows() if job.status == "done" else ():
                if not row.condition:
                    found[job.data, job.model, METHODS[job.method], job.sparsity_asked][row.metric].append(row.value)
    tables = defaultdict(list)
    for (data, model, method, asked), rows in sorted(found.items()):
        images, _, changed = data.rstrip(")").partition(" (")
        convolutional = model.endswith("_cnn")
        name = "pooling" if convolutional else f"{images}_controls" if changed else images
        what = ", ".join(filter(None, (model if convolutional else changed, f"{method} {asked:g}")))
        columns = POOLING if convolutional else COLUMNS
        tables[name].append([what, *(cell(rows[metric], metric) for metric in columns)])
    for name, lines in tables.items():
        head = ["", *(POOLING if name == "pooling" else COLUMNS).values()]
        write("biases.md", name, table(head, lines))


if __name__ == "__main__":
    main(sys.argv[1:])
