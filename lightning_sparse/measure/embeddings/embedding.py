"""A table of embeddings as rows: how many of its rows live, how isotropic they are, and what they know of words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from lightning_sparse.errors import SparsityError, as_list, check_choices
from lightning_sparse.measure.embeddings.isotropy import iso_score, mean_cosine, partition
from lightning_sparse.measure.embeddings.tables import check_table, embedding_of
from lightning_sparse.measure.embeddings.word_tests import (
    ANALOGIES,
    SIMILARITY,
    analogies,
    path_of,
    similarity,
    words_of,
)
from lightning_sparse.results.records import Measured, Record

TESTS = (*SIMILARITY, *ANALOGIES)


def measure_embedding(
    model: nn.Module | Tensor,
    words: Sequence[str] | None = None,
    *,
    layer: str | None = None,
    tests: Sequence[str] = TESTS,
) -> Measured:
    """Measure a table of embeddings: the words that pruning has left, isotropy, and word similarity where words are known.

    No measure of isotropy is one of quality: they disagree, and some get better while accuracy falls (docs/language.md).

    Args:
        model: a network with an ``nn.Embedding`` (tied or not) or ``nn.EmbeddingBag``, or a table (rows, dimensions).
        words: the word of each row, for the word tests, which gensim brings: ``pip install "lightning-sparse[words]"``. A
            word of a test is looked up as it is written, then in lower case.
        layer: name of the embedding in the model; None takes the largest.
        tests: which word tests: ``"wordsim353"``, ``"simlex999"``, ``"analogies"``, which goes through the whole table for
            each of up to 19,544 questions.

    Returns:
        Records, with the number of rows, pairs or questions as ``n``:

        - ``living_rows``: the share of rows that are not zeros, in [0, 1]; the padding row, known of a model, left out. The
          next three are of the living rows, and NaN where there are fewer than two.
        - ``isotropy_partition`` in (0, 1] (min Z / max Z), ``isotropy_cosine`` in [-1, 1] (the mean of all pairs),
          ``isotropy_iso`` in [0, 1] (IsoScore). Isotropic is 1, 0 and 1.
        - ``word_similarity_wordsim353``, ``word_similarity_simlex999``: Spearman's rank correlation with people's judgement,
          in [-1, 1], with its Fisher interval over pairs. NaN of fewer than four pairs.
        - ``word_analogies``: the share of right answers, with its Wilson interval.

    Raises:
        SparsityError: if there is no such table, if it is not finite, if ``words`` are not one text a row, or without gensim.

    Example:
        >>> import torch
        >>> table = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 0.0]])
        >>> for row in measure_embedding(table).records:
        ...     print(row.metric, round(row.value, 3), row.n)
        living_rows 0.8 5
        isotropy_partition 1.0 4
        isotropy_cosine -0.333 4
        isotropy_iso 1.0 4
    """
    asked = check_choices("tests", tests, TESTS)
    table, padding = _table(model, layer)
    listed = None if words is None else _check_words(words, len(table))
    alive = (table != 0).any(1)
    if padding is not None:
        alive[padding] = False
    living, rows = table[alive], len(table) - (padding is not None)
    told = f"{len(living)} living of {rows} rows, {table.shape[1]} dimensions"
    records = [Record("living_rows", len(living) / rows, rows, detail=told)]
    for name, measure in (("partition", partition), ("cosine", mean_cosine), ("iso", iso_score)):
        value = measure(living) if len(living) > 1 else math.nan
        records.append(Record(f"isotropy_{name}", value, len(living), detail=told))
    if listed is not None:
        known = words_of(table, listed)
        for name in asked:
            path = path_of(name)
            records.append(analogies(known, path) if name in ANALOGIES else similarity(known, path, name))
    return Measured(records)


def _table(model: nn.Module | Tensor, layer: str | None) -> tuple[Tensor, int | None]:
    """The table, and its padding row if there is one."""
    if not isinstance(model, nn.Module):
        if layer is not None:
            raise SparsityError(f"layer={layer!r} names a layer of a model, and model is a table: leave it out")
        return check_table("model", model), None
    name, found = embedding_of(model, layer)
    return check_table(f"{name}.weight", found.weight), found.padding_idx


def _check_words(words: Sequence[str], rows: int) -> list[str]:
    listed = as_list(words)
    if listed is None or len(listed) != rows or not all(isinstance(word, str) for word in listed):
        given = type(words).__name__ if listed is None else f"{len(listed)} entries"
        raise SparsityError(f"words={given} are not the words of {rows} rows: give a list with one str for each row")
    return listed
