"""Words of a text, the vocabulary of a training split, and texts as numbers of words or bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lightning_sparse.anatomy.tokens import PAD, UNKNOWN

FIRST = 2  # after PAD and UNKNOWN
BYTES = 256 + FIRST
"""Size of the vocabulary of bytes."""
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")  # \u2019 is the apostrophe that word processors write


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; punctuation is left out.

    Example:
        >>> words_of("A well-known poet's 2nd book.")
        ['a', 'well-known', "poet's", '2nd', 'book']
    """
    return _WORD.findall(text.lower())


def vocabulary(texts: Iterable[Sequence[str]], most: int) -> list[str]:
    """The most frequent words of texts, at most ``most - 2`` of them; the number of a word is its place plus 2.

    Example:
        >>> vocabulary([["a", "tree"], ["the", "tree"], ["the", "moss"]], most=4)
        ['the', 'tree']
    """
    counts = Counter(word for text in texts for word in text)
    return sorted(counts, key=lambda word: (-counts[word], word))[: most - FIRST]


def encoded(texts: Sequence[Sequence[str]], words: Sequence[str], length: int) -> Tensor:
    """Texts as numbers (n, length): 0 after the end, 1 for an unknown word; what is longer is cut.

    Example:
        >>> encoded([["the", "old", "tree"], ["tree"]], ["the", "tree"], length=4)
        tensor([[2, 1, 3, 0],
                [3, 0, 0, 0]])
    """
    number = {word: place + FIRST for place, word in enumerate(words)}
    rows = torch.full((len(texts), length), PAD)
    for row, text in zip(rows, texts, strict=True):
        found = [number.get(word, UNKNOWN) for word in text[:length]]
        row[: len(found)] = torch.tensor(found)
    return rows


def encoded_bytes(texts: Sequence[str], length: int) -> Tensor:
    """Texts as bytes of UTF-8 (n, length), each by its value plus 2; 0 after the end; what is longer is cut.

    Example:
        >>> encoded_bytes(["moss", "a"], length=4)
        tensor([[111, 113, 117, 117],
                [ 99,   0,   0,   0]])
    """
    rows = torch.full((len(texts), length), PAD)
    for row, text in zip(rows, texts, strict=True):
        found = text.encode()[:length]
        row[: len(found)] = torch.tensor([*found]) + FIRST
    return rows
