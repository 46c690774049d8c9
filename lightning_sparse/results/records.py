"""One typed row per measurement: the CSV, the figures, the report and W&B are all made from these.

A job appends its rows to ``records.jsonl`` as soon as they are known, one JSON object per line, so that a job killed between
two measurements keeps the first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sparse.results.fields import wrong_kind
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
        low: lower end of its 95 % interval over images (Wilson for shares, normal for means), of a time its lower quartile
            over rounds; NaN if there is none.
        high: upper end of that interval.
        attack: attack name for robustness rows (``"fgsm"``, ``"pgd"``, ``"apgd-dlr"``, ``"worst"``), else empty.
        norm: threat model of the attack, one of :mod:`lightning_sparse.results.norms`, else empty.
        eps: size of the perturbation in the norm's unit, else None.
        attribution: attribution method for saliency rows (``"gradient"``, ``"integrated_gradients"``), else empty.
        condition: any other condition that is not in the metric's name: ``"rotation 2"`` (a corruption and its severity),
            ``"batch=128"``.
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
            >>> Record("cost_latency_shrink", 0.4, 128, condition="batch=128").chart
            'cost/latency_shrink/batch=128'
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


@dataclass(frozen=True)
class Line:
    """One line of a JSON-lines file.

    Attributes:
        number: from 1.
        record: the row in it, if it is one.
        closes: the key of the measurement whose rows end here, if it says so; empty otherwise.
        rows: how many rows that measurement has; None if it does not say, as those of earlier versions.
        problem: why it can be neither; empty if it is one of them.
        torn: whether a kill may have cut it: what follows it was written by a later launch.
        text: the line itself.
    """

    number: int
    record: Record | None = None
    closes: str = ""
    rows: int | None = None
    problem: str = ""
    torn: bool = False
    text: bytes = b""


def append(path: Path, records: Iterable[Record], *, closes: str = "") -> None:
    """Append rows to a JSON-lines file, which is made if need be, and flush them to disk.

    A last line of its own names the measurement that these rows complete (``closes``, its key, which :func:`closed` lists),
    and says how many they are, because a kill or a full disk may let only the first rows through.
    """
    rows = [json.dumps(asdict(record)) + "\n" for record in records]
    lines = "".join(rows)
    lines += json.dumps({CLOSES: closes, "rows": len(rows)}) + "\n" if closes else ""
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


def read(path: Path, run: str = "") -> list[Record]:
    """Read the rows of a JSON-lines file, without lines that cannot be read; a missing file has none.

    Args:
        path: of the file.
        run: the job whose rows they are; those of another job are left out.
    """
    return [line.record for line in lines_of(path, run) if line.record is not None]


def closed(path: Path, run: str = "") -> set[str]:
    """Keys of the measurements whose every row is in a JSON-lines file."""
    lines = lines_of(path, run)
    return {line.closes for place, line in enumerate(lines) if line.closes and _whole(lines[:place], line)}


def _whole(before: list[Line], end: Line) -> bool:
    """Whether the rows that ``end`` counts stand right before it; if it counts none, whether all lines there can be read."""
    rows = list(takewhile(lambda line: not line.closes, reversed(before)))
    if end.rows is None:
        return not any(line.problem for line in rows)
    own = [line for line in rows[: end.rows] if line.record is not None and line.record.key in ("", end.closes)]
    return len(own) == end.rows


def lines_of(path: Path, run: str = "") -> list[Line]:
    """Read every line of a JSON-lines file, also those that cannot be read; a file that cannot be opened is one such line."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        return [Line(0, problem=error.strerror or str(error))]
    lines = enumerate(content.split(b"\n"), 1)
    return [replace(_line(number, text, run), text=text) for number, text in lines if text.strip()]


def _line(number: int, text: bytes, run: str) -> Line:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        torn = text.startswith(b'{"m') and not text.rstrip().endswith(b"}")
        return Line(number, problem="not UTF-8" if isinstance(error, UnicodeDecodeError) else "no JSON", torn=torn)
    if isinstance(said, dict) and CLOSES in said:
        closes, rows = said[CLOSES], said.get("rows")
        right = isinstance(closes, str) and closes and (rows is None or type(rows) is int)
        return (
            Line(number, closes=closes, rows=rows) if right else Line(number, problem=f"{CLOSES!r} is {closes!r:.60}")
        )
    if problem := wrong_kind(said, Record, finite=("eps",)):
        return Line(number, problem=problem)
    if not said["metric"] or said["n"] < 0:
        return Line(number, problem=f"'metric' is {said['metric']!r:.60}, and 'n' is {said['n']}")
    record = Record(**{name: value for name, value in said.items() if name in Record.__match_args__})
    if run and record.run not in ("", run):
        return Line(number, problem=f"a row of {record.run}")
    if run and not record.key:
        return Line(number, problem="without 'key'")
    return Line(number, record)


def in_a_line(records: Iterable[Record]) -> str:
    """Sum up one model's rows: clean accuracy, bits a token of a language model, and the worst case at each eps.

    Example:
        >>> rows = [Record("clean_accuracy", 0.97, 360), Record("robust_accuracy", 0.4, 360, attack="worst", eps=0.1)]
        >>> in_a_line(rows)
        'clean 0.970, robust 0.400 at 0.1'
    """
    rows = sorted(records, key=lambda row: row.eps or 0.0)
    clean = [f"clean {row.value:.3f}" for row in rows if row.metric == "clean_accuracy"]
    clean += [f"{row.value:.3f} bits a token" for row in rows if row.metric == "language_bits"]
    worst = [f"{row.value:.3f} at {row.eps:.3g}" for row in rows if row.attack == "worst" and row.eps is not None]
    return ", ".join([*clean, *(["robust " + ", ".join(worst)] if worst else [])])
