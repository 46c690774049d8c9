"""Whether results can be written where a launch would write them, asked before anything else is written there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile

from lightning_sparse.errors import SparsityError


def check_writable(folder: Path, *jobs: Path) -> None:
    """Raise a SparsityError if a folder cannot be made or written to, or holds files that somebody else may write to only.

    Args:
        folder: of a sweep or of a single job; it is made.
        jobs: the folders of a sweep's jobs, as far as they exist.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(b" ")
    except OSError as error:
        raise SparsityError(f"{folder} cannot be written to ({error.strerror}): {_ADVICE}") from error
    for path in _there(folder, jobs):
        if not os.access(path, os.W_OK):
            raise SparsityError(f"{path} cannot be written to (it is somebody else's, or read-only): {_ADVICE}")


_ADVICE = "write output=/a/folder/of/yours"


def _there(folder: Path, jobs: Iterable[Path]) -> Iterable[Path]:
    for path in (folder, *jobs):
        if path.is_dir():
            yield path
            yield from (part for part in path.iterdir() if part.is_file())
            yield from (path / ".hydra").glob("*")
