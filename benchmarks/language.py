"""The results of the sweeps `text`, `lm` and `words`: tables of docs/language.md.

lightning-sparse -cn text
lightning-sparse -cn text attack=embedding   # the same networks
lightning-sparse -cn lm
lightning-sparse -cn words
python benchmarks/language.py outputs/text outputs/lm outputs/words
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from by_seed import table, write

from lightning_sparse.results import records
from lightning_sparse.results.jobs import read_jobs
from lightning_sparse.statistics import t_interval

# The table of a network begins so, by the name of its job's model; those of Found.
VECTORS = {
    "bag_of_words": "at random",
    "bag_of_words (glove)": "GloVe",
    "bag_of_words (glove_without_top)": "top removed",
}

Found = dict[tuple[str, str, float], dict[str, list[float]]]  # by model, method and sparsity: charts, a value a seed

# What a row is called, its chart, what it is multiplied by, and digits.
TEXT = [
    ("accuracy, %", "clean/accuracy", 100, 1),
    ("synonyms for 10 % of the words", "robust/worst/synonyms/eps=0.1", 100, 1),
    ("for 25 %", "robust/worst/synonyms/eps=0.25", 100, 1),
    ("for any", "robust/worst/synonyms/eps=1", 100, 1),
    ("moves by .05 of the text's length", "robust/worst/embedding/eps=0.05", 100, 1),
    ("by .1", "robust/worst/embedding/eps=0.1", 100, 1),
    ("by .25", "robust/worst/embedding/eps=0.25", 100, 1),
    ("insertion-deletion gap", "saliency/integrated_gradients/insertion_deletion_gap", 1, 3),
    ("agreement with dense", "saliency/integrated_gradients/dense_agreement", 1, 3),
    ("Gini index", "saliency/integrated_gradients/gini", 1, 3),
    ("living rows, %", "living/rows", 100, 1),
    ("IsoScore", "isotropy/iso", 1, 3),
    ("mean cosine", "isotropy/cosine", 1, 3),
    ("description, kilobits", "cost/bits", 1e-3, 0),
]
LM = [
    ("bits a byte", "language/bits", 1, 3),
    ("perplexity", "language/perplexity", 1, 2),
    ("likeliest is right, %", "clean/accuracy", 100, 1),
]

WORDS = [
    TEXT[0],
    ("WordSim-353", "word/similarity_wordsim353", 1, 3),
    ("SimLex-999", "word/similarity_simlex999", 1, 3),
    ("living rows, %", "living/rows", 100, 1),
    ("IsoScore", "isotropy/iso", 1, 3),
]


def read(folder: Path) -> Found:
    """What each network's jobs measured, also in earlier launches with other attacks."""
    jobs, _ = read_jobs(folder)
    found: Found = defaultdict(lambda: defaultdict(list))
    compared = records.read(folder / "records.jsonl")  # what takes several networks
    for job in jobs:
        rows = [*records.read(job.rows, job.run), *(row for row in compared if row.run == job.run)]
        newest = {row.chart: row.value for row in rows}
        for chart, value in newest.items():
            found[job.model, job.method, job.sparsity_asked][chart].append(value)
    return found


def cells(found: Found, key: tuple[str, str, float], chart: str, scale: float, digits: int) -> str:
    """Mean over seeds and half of the 95 % interval."""
    values = [scale * value for value in found[key].get(chart, ())]
    if len(values) < 2:
        return "-"
    mean, low, high = t_interval(values)
    return f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f}"


def of_words(found: Found) -> str:
    """A row for each quantity and each way to begin, and what removing the top changes within a seed."""
    levels = sorted({(level, method) for _, method, level in found})
    rows = []
    for name, *of in WORDS:
        chart, scale, digits = of
        for model, begins in VECTORS.items():
            rows.append([name, begins, *(cells(found, (model, method, level), *of) for level, method in levels)])
        plain, without = (f"bag_of_words ({choice})" for choice in ("glove", "glove_without_top"))
        gains = []
        for level, method in levels:
            pairs = zip(found[plain, method, level][chart], found[without, method, level][chart], strict=True)
            mean, low, high = t_interval([scale * (b - a) for a, b in pairs])
            gains.append(f"{mean:+.{digits}f} ± {(high - low) / 2:.{digits}f}")
        rows.append([name, "removed less GloVe", *gains])
    return table(["", "vectors begin", *("dense" if not level else f"{level:g}" for level, _ in levels)], rows)


def main(text: Path, lm: Path | None = None, words: Path | None = None) -> None:
    """Fill the tables."""
    found = read(text)
    for model in sorted({model for model, _, _ in found}):
        levels = sorted({(level, method) for m, method, level in found if m == model})
        rows = [[name, *(cells(found, (model, method, level), *of) for level, method in levels)] for name, *of in TEXT]
        write(
            "language.md",
            f"text {model}",
            table(["", *("dense" if not level else f"{level:g}" for level, _ in levels)], rows),
        )
    if lm is not None:
        found = read(lm)
        rows = [
            [f"{method} {level:g}" if level else "dense", *(cells(found, (model, method, level), *of) for _, *of in LM)]
            for model, method, level in sorted(found, key=lambda key: (key[2] > 0, key[1], key[2]))
        ]
        write("language.md", "lm", table(["", *(name for name, *_ in LM)], rows))
    if words is not None:
        write("language.md", "words", of_words(read(words)))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
