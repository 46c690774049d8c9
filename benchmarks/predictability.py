"""The tables of docs/predictability.md, from the folders of its sweeps.

    lightning-sparse -cn predictability
    lightning-sparse -cn predictability name=predicted sparsity=static,predict_weights sparsity.final_sparsity=0.75,0.9,0.95
    python benchmarks/predictability.py outputs/predictability outputs/predicted [outputs/predictability_mnist ...]

Text in docs/predictability.md between `<!-- NAME -->` and `<!-- /NAME -->` is replaced.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

from lightning_sparse.results.jobs import read_jobs
from lightning_sparse.statistics import t_interval

PAGE = Path(__file__).parent.parent / "docs" / "predictability.md"
LAYERS = {"net.1.weight": "first", "net.3.weight": "second"}
CONTROLS = {
    "": "predicted",
    " random": "predicted from random weights",
    " zeros": "zeros in place of the prediction",
    " low rank": "low rank, as many numbers",
    " untrained": "predicted, untrained network",
}
Found = dict[tuple[str, str, float, str, str], list[float]]


def collect(folders: list[str]) -> Found:
    """The values over seeds, by data set, method, sparsity asked for, metric and condition."""
    found = defaultdict(list)
    for folder in folders:
        for job in read_jobs(Path(folder))[0]:
            for row in job.current_rows() if job.status == "done" else ():
                found[job.data, job.method, job.sparsity_asked, row.metric, row.condition].append(row.value)
    return found


def cell(values: list[float], digits: int = 3) -> str:
    """A mean and half of its interval."""
    mean, low, _ = t_interval(values)
    return f"{mean:.{digits}f} ± {mean - low:.{digits}f}" if values else ""


def percent(values: list[float]) -> str:
    return cell([100 * value for value in values], 1)


def table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def shares(found: Found, data: str) -> list[float]:
    """The shares of weights kept that a data set was measured at."""
    conditions = {key[-1] for key in found if key[0] == data and key[3] == "predictability_explained"}
    return sorted({float(condition.split()[1]) for condition in conditions})


def cells_of(found: Found, data: str) -> list[str]:
    return [f"{name}, {share:.0%}" for name in LAYERS.values() for share in shares(found, data)]


def sparsities(found: Found, data: str) -> str:
    """What is explained, and the accuracy with the prediction in place, at each sparsity."""
    methods = {
        (asked, method) for of, method, asked, *_ in found if of == data and method in ("dense", "gradual_pruning")
    }
    head = ["sparsity", "accuracy", *cells_of(found, data), "living inputs of the second"]
    lines = []
    for asked, method in sorted(methods):
        of = (data, method, asked)
        line = [f"{asked:g}", percent(found[*of, "clean_accuracy", ""])]
        for name in LAYERS:
            for share in shares(found, data):
                condition = f"{name} {share:g}"
                explained = cell(found[*of, "predictability_explained", condition], 2)
                line.append(f"{explained} ({percent(found[*of, 'predictability_accuracy', condition])})")
        living = found[*of, "predictability_living_inputs", "net.3.weight"]
        lines.append([*line, f"{sum(living) / len(living):.0f}"])
    return table(head, lines)


def controls(found: Found, data: str) -> str:
    """What else explains, of dense networks."""
    head = ["dense networks", *cells_of(found, data)]
    lines = []
    for how, words in CONTROLS.items():
        line = [words]
        for name in LAYERS:
            for share in shares(found, data):
                condition = f"{name} {share:g}{how}"
                accuracies = found[data, "dense", 0.0, "predictability_accuracy", condition]
                explained = cell(found[data, "dense", 0.0, "predictability_explained", condition], 2)
                line.append(f"{explained} ({percent(accuracies)})" if accuracies else explained)
        lines.append(line)
    return table(head, lines)


def trained(found: Found, data: str) -> str:
    """Accuracy of networks of which a share of the hidden weights is trained."""
    levels = sorted({asked for of, method, asked, *_ in found if of == data and method == "predict_weights"})
    dense = percent(found[data, "dense", 0.0, "clean_accuracy", ""])
    lines = [
        [f"{1 - asked:.0%}"]
        + [percent(found[data, method, asked, "clean_accuracy", ""]) for method in ("predict_weights", "static")]
        + [dense]
        for asked in levels
    ]
    return table(["hidden weights trained", "`PredictWeights`", "random mask, ERK, as many", "dense, all"], lines)


def main(folders: list[str]) -> None:
    found, text = collect(folders), PAGE.read_text()
    for data in sorted({of for of, *_ in found}):
        for make in (sparsities, controls, trained):
            name = f"{data} {make.__name__}"
            put = f"<!-- {name} -->\n{make(found, data)}\n<!-- /{name} -->"
            text = re.sub(f"<!-- {name} -->.*<!-- /{name} -->", lambda _, put=put: put, text, flags=re.S)
    PAGE.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
