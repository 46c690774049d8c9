"""What a benchmark finds, seed by seed: kept in a file, so that one that is cut off goes on, and shown with intervals.

A benchmark that is called again runs the seeds that its file lacks, and writes its table from all that are there, between
`<!-- NAME -->` and `<!-- /NAME -->` of a page in docs/.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lightning_sparse.statistics import t_interval

ROOT = Path(__file__).parent.parent
Found = dict[str, float]


def by_seed(name: str, measure: Callable[[int], Found], seeds: int = 5) -> list[Found]:
    """What ``measure(seed)`` finds, of the seeds that are not in outputs/<name>.jsonl yet, and of those that are."""
    path = ROOT / "outputs" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for seed in range(len(found), seeds):
        start = time.perf_counter()
        found.append(measure(seed))
        with path.open("a") as file:
            file.write(json.dumps(found[-1]) + "\n")
        print(f"{name}: seed {seed}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return found


def cell(found: list[Found], key: str, minus: str | None = None) -> str:
    """Mean over the seeds and half of its 95 % Student-t interval, of a number or of a difference within a seed."""
    if not all(key in seed and (minus is None or minus in seed) for seed in found):
        return "-"
    mean, low, high = t_interval([seed[key] - (0.0 if minus is None else seed[minus]) for seed in found])
    return f"{mean:{'.2f' if minus is None else '+.2f'}} ± {(high - low) / 2:.2f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def write(page: str, mark: str, text: str) -> None:
    """Put a text between its marks, and print it."""
    path = ROOT / "docs" / page
    old, marks = path.read_text(), rf"(<!-- {mark} -->).*?(<!-- /{mark} -->)"
    if not re.search(marks, old, flags=re.S):
        raise SystemExit(f"docs/{page} has no <!-- {mark} -->")
    path.write_text(re.sub(marks, lambda found: f"{found[1]}\n\n{text}\n\n{found[2]}", old, flags=re.S))
    print(text)
