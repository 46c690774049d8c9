"""The embedded texts: definitions of WordNet 3.0's nouns, each with its supersense; and which words are synonyms.

Both files are made by ``scripts/glosses.py``, and WordNet's licence lies beside them.
"""

from __future__ import annotations

import lzma
from importlib.resources import files


def glosses() -> list[tuple[str, str]]:
    """15,000 definitions, 1,500 of each of ten classes, no two of which share four fifths of their words: (text, class).

    Example:
        >>> found = glosses()
        >>> len(found), found[1][1]
        (15000, 'substance')
    """
    rows = (line.split("\t") for line in _lines("glosses"))
    return [(text, label) for label, _, text in rows]


def synonyms() -> dict[str, list[str]]:
    """The single words that share a synset with a word, of any part of speech, among the words of the glosses.

    Example:
        >>> synonyms()["acquiring"]
        ['getting']
    """
    return {word: alike for word, *alike in map(str.split, _lines("synonyms"))}


def _lines(name: str) -> list[str]:
    packed = (files("lightning_sparse.data") / "wordnet" / f"{name}.txt.xz").read_bytes()
    return lzma.decompress(packed).decode().splitlines()
