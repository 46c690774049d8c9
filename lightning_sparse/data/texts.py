"""Texts as numbers of words, with fixed, disjoint splits: the embedded glosses, and a file of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightning_sparse.data.checks import as_integer
from lightning_sparse.data.datasets import Batch, Batched, indices_on, stratified_split
from lightning_sparse.data.fixed_splits import FixedSplits
from lightning_sparse.data.glosses import glosses, synonyms
from lightning_sparse.data.text_file import Row, read_texts
from lightning_sparse.data.vocabulary import BYTES, FIRST, encoded, encoded_bytes, vocabulary, words_of
from lightning_sparse.errors import SparsityError, check_choice, check_count, check_share


class Tokens(Batched):
    """Tokens (n, length) and labels (n,), held as tensors."""

    def __init__(self, tokens: Tensor, labels: Tensor) -> None:
        self.tokens, self.labels = tokens, labels

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        chosen = indices_on(indices, self.tokens.device)
        return self.tokens[chosen], self.labels[chosen]

    def subset(self, indices: Tensor) -> Tokens:
        """Keep only some texts."""
        return Tokens(self.tokens[indices], self.labels[indices])


class TextData(FixedSplits):
    """One text classification data set, as a Lightning data module.

    It gives texts as numbers of words, (n, length), integers: 0 fills a text up at its end, 1 is a word that is not in the
    vocabulary. The vocabulary is that of the texts that are trained on, so no word of a validation or test text is known by
    itself. A word is a run of letters, digits, inner hyphens and apostrophes, in lower case.

    Args:
        file: of comma-separated values in UTF-8 (tabs if its name ends in .tsv) with columns ``text`` and ``label``, and
            perhaps ``split``, ``train`` or ``test``. None is the glosses: 15,000 definitions of nouns from WordNet 3.0, 1,500
            of each of ten classes (act, animal, artifact, body, ...), where no two share four fifths of their words.
        classes: number of classes, at least 2; each needs texts in every split. They are numbered in alphabetical order.
        words: size of the vocabulary, with the two numbers that are no words: the most frequent ones are in it.
        length: words of a text, or bytes; what is longer is cut.
        unit: ``"words"``, or ``"bytes"``: of UTF-8, each by its value plus 2, which no text lacks; ``words`` then is 258.
        test: share of the texts kept for the test split, in (0, 1), unless the file says which.
        label_noise: share of the training labels drawn anew by ``split_seed``, in [0, 1]: at 1.0 labels are random.
        texts: how many texts to train on, a stratified sample by ``split_seed``; None is all.
        batch_size: texts per training batch.
        validation: share of the training split kept for validation, in (0, 1).
        split_seed: seed of the splits, 0 to 2**32 - 1; None is 0.
        shuffle_seed: seed of the training order, likewise.
        num_workers: worker processes of each loader; texts are held in memory and need none.

    Attributes:
        vocabulary: after ``setup``, the words by their number less 2.
        class_names: after ``setup``, the labels by their number.

    Raises:
        SparsityError: at once if an argument is out of range; in ``setup``, before any training, if the file is missing or
            broken, which names the row, or has other classes.

    Example:
        >>> data = TextData(classes=10)
        >>> texts, labels = data.split("test", 100)
        >>> texts.shape, data.vocabulary[:3], data.class_names[:3]
        (torch.Size([100, 32]), ['of', 'a', 'the'], ['act', 'animal', 'artifact'])
    """

    inputs = "tokens"
    what = "texts"

    def __init__(
        self,
        file: str | Path | None = None,
        *,
        classes: int,
        words: int = 8000,
        length: int = 32,
        unit: str = "words",
        test: float = 0.15,
        label_noise: float = 0.0,
        texts: int | None = None,
        batch_size: int = 128,
        validation: float = 0.1,
        split_seed: int = 0,
        shuffle_seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            classes=classes,
            label_noise=label_noise,
            most=texts,
            batch_size=batch_size,
            validation=validation,
            split_seed=split_seed,
            shuffle_seed=shuffle_seed,
            num_workers=num_workers,
        )
        if not (file is None or (isinstance(file, str | Path) and str(file))):
            raise SparsityError(f"file={file!r} is not a path: write data.file=/path/to/texts.csv")
        self.file = file
        self.words = check_count("words", as_integer(words), FIRST + 1, write=8000)
        self.length = check_count("length", as_integer(length), write=32)
        self.unit = check_choice("unit", unit, ("words", "bytes"))
        if unit == "bytes" and self.words != BYTES:
            raise SparsityError(
                f"words={words} is not the number of bytes and the two that are none: write words={BYTES}"
            )
        if not 0.0 < check_share("test", test) < 1.0:
            raise SparsityError(f"test={test} leaves an empty split: write a share such as 0.15")
        self.test = test
        self.vocabulary: list[str] = []
        self.class_names: list[str] = []
        self._words: dict[str, list[list[str]]] = {}

    def setup(self, stage: str = "fit") -> None:
        """Read the texts, cut the splits, and number the words, once."""
        if self._splits:
            return
        rows = [Row(*gloss, "") for gloss in glosses()] if self.file is None else read_texts(self.file)
        names = sorted({row.label for row in rows})
        where = "the glosses" if self.file is None else f"file={str(self.file)!r}"
        if len(names) != self.classes:
            raise SparsityError(
                f"{where} has {len(names)} classes, not classes={self.classes}: write classes={max(len(names), 2)}, or in a "
                f"command data.classes={max(len(names), 2)}"
            )
        labels = torch.tensor([names.index(row.label) for row in rows])
        texts = [words_of(row.text) for row in rows]
        if empty := [number for number, text in enumerate(texts, 1) if not text]:
            raise SparsityError(
                f"row {empty[0]} of {where} has no word, only {rows[empty[0] - 1].text!r}: remove the row"
            )
        first, last = self._train_and_test(rows, labels, where)
        kept, held_out = self.cut(labels[first])
        parts = {"train": first[kept], "validation": first[held_out], "test": last}
        self._words = {name: [texts[place] for place in places.tolist()] for name, places in parts.items()}
        self.vocabulary, self.class_names = vocabulary(self._words["train"], self.words), names
        seen = {tuple(text) for text in self._words["train"]}
        if twins := sum(tuple(text) in seen for text in self._words["test"]):
            warnings.warn(
                f"{twins} of {len(last)} test texts of {where} are among the training texts word by word: what is measured "
                "on them is memory",
                stacklevel=2,
            )
        held = []
        for name, places in parts.items():
            if self.unit == "bytes":
                tokens = encoded_bytes([rows[place].text for place in places.tolist()], self.length)
            else:
                tokens = encoded(self._words[name], self.vocabulary, self.length)
            held.append(Tokens(tokens, labels[places]))
        self.hold(*held)

    def _train_and_test(self, rows: list[Row], labels: Tensor, where: str) -> tuple[Tensor, Tensor]:
        if not rows[0].split:
            return stratified_split(labels, self.test, self.split_seed, self.what)
        said = torch.tensor([row.split == "test" for row in rows])
        first, last = (~said).nonzero().squeeze(1), said.nonzero().squeeze(1)
        there, tested = (set(labels[places].tolist()) for places in (first, last))
        if there != tested:
            alone = ", ".join(sorted({rows[int((labels == label).nonzero()[0])].label for label in there ^ tested})[:5])
            raise SparsityError(
                f"the training and the test texts of {where} have other classes: only one of them has {alone}; give both the "
                "same"
            )
        return first, last

    def word_lists(self, name: str, most: int | None = None) -> list[list[str]]:
        """The words of the texts of :meth:`split`, in the same order, unknown ones too, cut at ``length``."""
        return [self._words[name][place][: self.length] for place in self.sample(name, most)]

    def synonyms(self) -> dict[int, list[int]]:
        """For the number of a word those of its synonyms in WordNet 3.0, as far as the vocabulary has both.

        Two words are synonyms if they share a synset, in any sense and part of speech, after Ren et al. 2019 (PWWS). Known
        are those among the words of the glosses.

        Example:
            >>> data = TextData(classes=10)
            >>> alike = data.synonyms()
            >>> number = data.vocabulary.index("small") + 2
            >>> [data.vocabulary[other - 2] for other in alike[number]]
            ['little', 'low', 'minor']
        """
        if self.unit == "bytes":
            raise SparsityError("unit='bytes' has no words, and so no synonyms: write unit='words'")
        self.setup()
        number = {word: place + FIRST for place, word in enumerate(self.vocabulary)}
        alike = {
            number[word]: [number[other] for other in others if other in number]
            for word, others in synonyms().items()
            if word in number
        }
        return {word: others for word, others in alike.items() if others}
