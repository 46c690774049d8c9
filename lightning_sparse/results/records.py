"""One typed row per measurement: the CSV, the figures, the report and W&B are all made from these.

A job appends its rows to ``records.jsonl`` as soon as they are known, one JSON object per line, so that a job killed between
two measurements keeps the first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sparse.results.files import write_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLOSES = "measured"


# Conditions of a number that is also recorded without one.
NARROWS = ("same images", "early", "late", "epoch ")


@dataclass(frozen=True)
class Record:
    """One measured number, what it is, and which network it belongs to.

    A function of :mod:`lightning_sparse.measure` fills the first block of fields; its caller adds the second.

    Attributes:
        metric: what was measured; its first word is its group: ``"clean_accuracy"``, ``"trust_zero_gradients"``,
            ``"cost_bits"``, ... Saliency metrics have no group in their name: ``"gini"``, ``"insertion_deletion_gap"``, ...
        value: the number; NaN where it is undefined (a saliency map of zeros has no Gini index), never a made-up 0.
        n: how many images it was computed on.
        low: lower end of its 95 % interval over images (Wilson for shares, normal for means); NaN if there is none.
        high: upper end of that interval.
        attack: attack name for robustness rows (``"fgsm"``, ``"pgd"``, ``"apgd-dlr"``, ``"worst"``), else empty.
        norm: threat model of the attack, ``"Linf"`` or ``"L2"``, else empty.
        eps: size of the perturbation in units of [0, 1] pixels, else None.
        attribution: attribution method for saliency rows (``"gradient"``, ``"integrated_gradients"``), else empty.
        condition: any other condition that is not in the metric's name: ``"rotation 2"`` (a corruption and its severity).
        trust: verdict on a robust accuracy: ``"passed"``, ``"failed: "`` and which checks, or empty if none was made.
        samples: images that went through the model for this row alone, counting each step of an attack; 0 if not counted.
        detail: in words, everything the number depends on: steps, step size, loss, baseline, ...
        key: name of the measurement's settings; rows with the same key are not measured again.
        run: name of the job and of its folder.
        method: name of the sparsity method (``"dense"``, ``"gradual"``, ``"brain"``, ...).
        data: name of the data set.
        model: name of the architecture.
        seed: seed of the training run.
        sparsity_asked: the sparsity asked for, in [0, 1].
        sparsity: the sparsity achieved, counted in the model that was measured.
    """

    metric: str
    value: float
    n: int
    low: float = float("nan")
    high: float = float("nan")
    attack: str = ""
    norm: str = ""
    eps: float | None = None
    attribution: str = ""
    condition: str = ""
    trust: str = ""
    samples: int = 0
    detail: str = ""
    key: str = ""

    run: str = ""
    method: str = ""
    data: str = ""
    model: str = ""
    seed: int = 0
    sparsity_asked: float = 0.0
    sparsity: float = 0.0

    @property
    def chart(self) -> str:
        """Name under which trackers chart it; the part before the first slash is its group.

        None is the beginning of another's path: to a tracker that keeps files, it would be a file and a folder.

        Example:
            >>> Record("robust_accuracy", 0.4, 100, attack="pgd", eps=0.125).chart
            'robust/pgd/eps=0.125'
            >>> Record("gini", 0.6, 100, attribution="gradient").chart
            'saliency/gradient/gini'
            >>> Record("clean_accuracy", 0.97, 100).chart
            'clean/accuracy'
            >>> Record("corruption_accuracy", 0.8, 100, condition="rotation 2").chart
            'corruption/accuracy/rotation 2'
            >>> Record("vog_mean", 0.1, 100, condition="early").chart
            'vog/mean early'
        """
        group, _, name = self.metric.partition("_")
        if self.attribution:
            group, name = f"saliency/{self.attribution}", self.metric
        norm = "" if self.norm in ("", "Linf") else self.norm
        eps = "" if self.eps is None else f"eps={self.eps:.4g}"
        name = "" if self.metric == "robust_accuracy" else name
        condition = self.condition
        if condition.startswith(NARROWS):
            name, condition = f"{name} {condition}", ""
        return "/".join(part for part in (group, name, self.attack, norm, condition, eps) if part)


@dataclass(frozen=True)
class Measured:
    """What a measurement found: rows, and the numbers of single images behind them.

    Attributes:
        records: the rows.
        arrays: by name, the numbers of each image, for ``np.savez``; the first axis is the image.
    """

    records: list[Record]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


def append(path: Path, records: Iterable[Record], *, closes: str = "") -> None:
    """Append rows to a JSON-lines file, which is made if need be, and flush them to disk.

    A last line of its own names the measurement that these rows complete (``closes``, its key, which :func:`closed` lists),
    because a kill or a full disk may let only the first rows through.
    """
    lines = "".join(json.dumps(asdict(record)) + "\n" for record in records)
    lines += json.dumps({CLOSES: closes}) + "\n" if closes else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            lines = lines if file.read() == b"\n" else "\n" + lines  # a kill tore the last line
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def write(path: Path, records: Iterable[Record]) -> None:
    """Replace the rows of a JSON-lines file, whole or not at all."""
    write_whole(path, "".join(json.dumps(asdict(record)) + "\n" for record in records))


def read(path: Path) -> list[Record]:
    """Read the rows of a JSON-lines file without torn lines; a missing file has none."""
    known = {field.name for field in fields(Record)}
    rows = (row for row in _lines(path) if CLOSES not in row)
    return [Record(**{name: value for name, value in row.items() if name in known}) for row in rows]


def closed(path: Path) -> set[str]:
    """Keys of the measurements whose every row is in a JSON-lines file."""
    return {row[CLOSES] for row in _lines(path) if CLOSES in row}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        with suppress(json.JSONDecodeError):
            yield json.loads(line)


def in_a_line(records: Iterable[Record]) -> str:
    """Sum up one model's rows: clean accuracy, and the worst case at each eps.

    Example:
        >>> rows = [Record("clean_accuracy", 0.97, 360), Record("robust_accuracy", 0.4, 360, attack="worst", eps=0.1)]
        >>> in_a_line(rows)
        'clean 0.970, robust 0.400 at 0.1'
    """
    rows = sorted(records, key=lambda row: row.eps or 0.0)
    clean = [f"clean {row.value:.3f}" for row in rows if row.metric == "clean_accuracy"]
    worst = [f"{row.value:.3f} at {row.eps:.3g}" for row in rows if row.attack == "worst" and row.eps is not None]
    return ", ".join([*clean, *(["robust " + ", ".join(worst)] if worst else [])])
