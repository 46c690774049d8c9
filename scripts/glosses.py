"""Make the embedded texts: glosses of WordNet 3.0's nouns, each with its supersense, and the synonyms of their words.

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb wordnet
    python scripts/glosses.py wordnet/usr/share/wordnet

It writes lightning_sparse/data/wordnet/glosses.txt.xz and synonyms.txt.xz, the same bytes each time. A gloss is the
definition without its examples. The ten lexicographer files with the most nouns are the classes, with 1,500 glosses each,
chosen by a hash of the synset, at least three words long. Of glosses that share four fifths of their words only one is kept,
so that no text of a test split has a twin in training.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

CLASSES, OF_EACH, SHORTEST, ALIKE = 10, 1500, 3, 0.8
# The names of the lexicographer files 03 to 28, as lexnames(5WN) lists them.
NOUNS = re.findall(
    r"\w+",
    "Tops act animal artifact attribute body cognition communication event feeling food group location "
    "motive object person phenomenon plant possession process quantity relation shape state substance time",
)
TO = Path(__file__).parent.parent / "lightning_sparse" / "data" / "wordnet"


def synsets(path: Path) -> list[tuple[str, int, list[str], str]]:
    """Offset, lexicographer file, lemmas and gloss of each synset; see wndb(5WN)."""
    found = []
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith("  "):
            continue  # the licence
        head, _, gloss = line.partition(" | ")
        fields = head.split()
        count = int(fields[3], 16)
        lemmas = [re.sub(r"\(\w+\)$", "", lemma) for lemma in fields[4 : 4 + 2 * count : 2]]
        found.append((fields[0], int(fields[1]), lemmas, gloss))
    return found


def definition(gloss: str) -> str:
    """A gloss without its examples, which stand in quotation marks."""
    return re.sub(r"\s+", " ", gloss.split('"')[0]).strip(" ;:,.")


def words(text: str) -> list[str]:
    """The words of a text."""
    return re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text.lower())


def apart(texts: dict[str, str]) -> list[str]:
    """The keys of texts, in order, of which no two share more than ``ALIKE`` of their words (Jaccard)."""
    sets = {key: frozenset(words(text)) for key, text in texts.items()}
    often = Counter(word for held in sets.values() for word in held)
    by_word: dict[str, list[str]] = defaultdict(list)
    kept = []
    for key, held in sets.items():
        rare = sorted(held, key=lambda word: (often[word], word))
        first = rare[: len(held) - int(ALIKE * len(held)) + 1]  # two that are alike share one of these
        near = {other for word in first for other in by_word[word]}
        if any(len(held & sets[other]) > ALIKE * len(held | sets[other]) for other in near):
            continue
        kept.append(key)
        for word in first:
            by_word[word].append(key)
    return kept


def main(wordnet: Path) -> None:
    """Choose the glosses, find the synonyms of their words, and write both."""
    nouns = synsets(wordnet / "data.noun")
    sizes = Counter(file for _, file, _, _ in nouns)
    classes = sorted(file for file, _ in sizes.most_common(CLASSES))
    nouns = [noun for noun in nouns if noun[1] in classes and len(words(definition(noun[3]))) >= SHORTEST]
    nouns.sort(key=lambda noun: hashlib.sha256(noun[0].encode()).digest())
    text = {offset: definition(gloss) for offset, _, _, gloss in nouns}
    file = {offset: number for offset, number, _, _ in nouns}
    chosen: list[str] = []
    taken: Counter[int] = Counter()
    for offset in apart(text):
        if taken[file[offset]] < OF_EACH:
            taken[file[offset]] += 1
            chosen.append(offset)
    lines = [f"{NOUNS[file[offset] - 3]}\t{offset}\t{text[offset]}" for offset in chosen]
    known = {word for offset in chosen for word in words(text[offset])}
    alike: dict[str, set[str]] = defaultdict(set)
    for kind in ("noun", "verb", "adj", "adv"):
        for _, _, lemmas, _ in synsets(wordnet / f"data.{kind}"):
            single = {lemma.lower() for lemma in lemmas if "_" not in lemma}
            for word in single & known:
                alike[word] |= (single - {word}) & known
    pairs = [f"{word} {' '.join(sorted(alike[word]))}" for word in sorted(alike) if alike[word]]
    TO.mkdir(exist_ok=True)
    for name, content in (("glosses", lines), ("synonyms", pairs)):
        data = lzma.compress("\n".join([*content, ""]).encode(), preset=9 | lzma.PRESET_EXTREME)
        (TO / f"{name}.txt.xz").write_bytes(data)
        print(f"{name}: {len(content)} lines, {len(data):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
