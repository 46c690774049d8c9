"""What word vectors know: similarity as people judge it, and analogies, from the files of gensim's own tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_sparse.extras import need
from lightning_sparse.measure.embeddings.tables import ROWS
from lightning_sparse.measure.rows import share_row
from lightning_sparse.results.records import Record
from lightning_sparse.statistics.intervals import Z

SIMILARITY = {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt"}
ANALOGIES = {"analogies": "questions-words.txt"}
QUESTIONS = 256  # asked at once: so many rows of cosines with the whole table


class Words(NamedTuple):
    """Unit vectors (rows, dimensions), zeros where a row is zeros, and the row of each word."""

    vectors: Tensor
    rows: Mapping[str, int]

    def row(self, word: str) -> int | None:
        """The row of a word as it is written, or else in lower case."""
        found = self.rows.get(word)
        return self.rows.get(word.lower()) if found is None else found

    def known(self, lines: Sequence[Sequence[str]]) -> Tensor:
        """The rows of those lines all of whose words are known, (lines, words)."""
        found = [[self.row(word) for word in line] for line in lines]
        return torch.tensor([line for line in found if None not in line], dtype=torch.long)


def words_of(table: Tensor, words: Sequence[str]) -> Words:
    """Look-ups for a table whose rows are words; of a word that stands there twice the first row counts."""
    vectors = table.detach().to("cpu", torch.promote_types(table.dtype, torch.float32))
    lengths = vectors.norm(dim=1, keepdim=True)
    rows = {word: row for row, word in reversed(list(enumerate(words)))}
    return Words(vectors / torch.where(lengths > 0, lengths, 1), rows)


def path_of(name: str) -> Path:
    """Where gensim keeps the file of a test."""
    return Path(need("gensim.test.utils").datapath((SIMILARITY | ANALOGIES)[name]))


def similarity(words: Words, path: Path, name: str) -> Record:
    """Spearman's rank correlation of cosines with people's judgement of the same pairs, and its Fisher interval.

    The file has two words and a number a line, between tabs. A pair with a vector of zeros, which has no direction, has a
    cosine of 0. The standard error of the transformed correlation is sqrt(1.06 / (n - 3)) (Fieller et al. 1957).
    """
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line[:1] not in ("#", "")]
    known = [line for line in lines if None not in (words.row(line[0]), words.row(line[1]))]
    told = f"Spearman of cosine with people's means; {len(known)} of {len(lines)} pairs have both words"
    if len(known) < 4:
        return Record(f"word_similarity_{name}", math.nan, len(known), detail=told)
    rows = words.known([line[:2] for line in known])
    cosines = (words.vectors[rows[:, 0]] * words.vectors[rows[:, 1]]).sum(1)
    empty = int((words.vectors[rows] == 0).all(2).any(1).sum())
    judged = [float(line[2]) for line in known]
    value = math.nan
    if len(set(cosines.tolist())) > 1 and len(set(judged)) > 1:
        value = float(need("scipy.stats").spearmanr(cosines.numpy(), judged).statistic)
    low, high = _fisher(value, len(known))
    told += f", {empty} with a vector of zeros"
    return Record(f"word_similarity_{name}", value, len(known), low, high, detail=told)


def _fisher(value: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a rank correlation of n pairs."""
    if not abs(value) < 1:
        return value, value
    half = Z * math.sqrt(1.06 / (n - 3))
    return math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)


def analogies(words: Words, path: Path) -> Record:
    """The share of "a is to b as c is to d" in which d is the row nearest to b - a + c, a, b and c apart (3CosAdd).

    The file has four words a line; lines with a colon are headings. Mikolov et al. 2013 (arXiv 1301.3781).
    """
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line[:1] not in (":", "")]
    known, hits = words.known(lines), 0
    for asked in torch.split(known, QUESTIONS) if len(known) else ():
        a, b, c = (words.vectors[asked[:, place]] for place in range(3))
        wanted = b - a + c
        best, nearest = torch.full((len(asked),), -math.inf), torch.zeros(len(asked), dtype=torch.long)
        for begin in range(0, len(words.vectors), ROWS):
            cosines = wanted @ words.vectors[begin : begin + ROWS].T
            for place in range(3):
                inside = (asked[:, place] >= begin) & (asked[:, place] < begin + cosines.shape[1])
                cosines[inside, asked[inside, place] - begin] = -math.inf
            highest, where = cosines.max(1)
            better = highest > best
            best, nearest = torch.where(better, highest, best), torch.where(better, where + begin, nearest)
        hits += int((nearest == asked[:, 3]).sum())
    told = f"3CosAdd among {len(words.vectors)} rows; {len(known)} of {len(lines)} questions have all words"
    return share_row("word_analogies", hits, len(known), detail=told)
