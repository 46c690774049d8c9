"""Texts of one's own, in a file of comma-separated values; what is wrong with it is named."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from lightning_sparse.errors import SparsityError

_WRITE = "write data.file=/path/to/texts.csv, whose first line is text,label"


class Row(NamedTuple):
    """A text, its class, and ``"train"``, ``"test"``, or empty where the file does not say."""

    text: str
    label: str
    split: str


def read_texts(file: str | Path) -> list[Row]:
    """Read a file of comma-separated values (or tabs, if its name ends in .tsv) in UTF-8 with columns ``text`` and ``label``.

    A column ``split`` says ``train`` or ``test`` for each text; without it the test split is cut from all. Other columns are
    not read.

    Raises:
        SparsityError: if the file cannot be read, lacks a column, or holds a row without text or label, which it names.
    """
    path = Path(file).expanduser()
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
            columns = reader.fieldnames or []
            missing = [name for name in ("text", "label") if name not in columns]
            if missing:
                there = ", ".join(columns) or "nothing"
                raise SparsityError(
                    f"file={str(file)!r} has no column {' and no column '.join(missing)}, but {there}: {_WRITE}"
                )
            rows = [
                Row((row["text"] or "").strip(), (row["label"] or "").strip(), (row.get("split") or "").strip())
                for row in reader
            ]
    except OSError as error:
        raise SparsityError(f"file={str(file)!r} cannot be read ({error.strerror}): {_WRITE}") from error
    except UnicodeDecodeError as error:
        raise SparsityError(f"file={str(file)!r} is not in UTF-8 ({error.reason}): save it in that encoding") from error
    except csv.Error as error:
        raise SparsityError(f"file={str(file)!r} is no file of comma-separated values ({error}): {_WRITE}") from error
    for number, row in enumerate(rows, 1):
        for name in ("text", "label"):
            if not getattr(row, name):
                raise SparsityError(
                    f"row {number} of file={str(file)!r} has no {name}: remove the row, or add what it lacks"
                )
    splits = {row.split for row in rows}
    if splits not in ({""}, {"train", "test"}) and rows:
        raise SparsityError(
            f"the column split of file={str(file)!r} holds {', '.join(map(repr, sorted(splits)))}: write train or test in "
            "every row, both at least once, or leave the column out"
        )
    return rows
