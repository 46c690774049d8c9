"""Begin with the word vectors of a file in place of those that were drawn at random."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_sparse.anatomy.tokens import UNKNOWN
from lightning_sparse.callbacks.all_but_the_top import AllButTheTop
from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.refusals import refuse_sharded
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.measure.embeddings.all_but_the_top import all_but_the_top
from lightning_sparse.measure.embeddings.tables import plain_table
from lightning_sparse.measure.embeddings.word_vectors import word_vectors

FEW = 0.5  # of the words: a table of fewer is mostly random, which is worth a warning


class PretrainedVectors(OneOfAKind):
    """Put pretrained vectors into an embedding, before the first step and the first mask.

    All are scaled by one number, so that their mean length is that of the vectors they replace: cosines stay, and learning
    rates, layers and a ranking of all weights by magnitude go on as with vectors drawn at random. A word that the file lacks
    keeps its own, and so do the row of padding and that of the unknown word. A training that resumes reads no file.

    Args:
        file: of the vectors, as :func:`~lightning_sparse.measure.word_vectors` reads it; None is GloVe from its wheel.
        layer: name of the ``nn.Embedding`` (or ``nn.EmbeddingBag``) in the module; None takes the largest.
        directions: take the mean and so many top directions out of the vectors that were found
            (:func:`~lightning_sparse.measure.all_but_the_top`); None leaves them as they are, 0 takes the mean alone.
        words: the word of each row, ``""`` where it is none; None asks the Trainer's data module, which is a
            :class:`~lightning_sparse.data.TextData`.

    Attributes:
        found: of how many words the file has a vector; None before training, and after one in spawned processes.

    Raises:
        SparsityError: on arguments out of range; before the first step, if the file is broken, knows none of the words, or
            has vectors of another size.

    Example:
        >>> from lightning_sparse import GradualPruning, PretrainedVectors
        >>> begin = PretrainedVectors("glove.6B.50d.txt", directions=1)
        >>> callbacks = [begin, GradualPruning(0.9, include=["*words.weight"])]
    """

    def __init__(
        self,
        file: str | Path | None = None,
        layer: str | None = None,
        directions: int | None = None,
        words: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not (file is None or (isinstance(file, str | Path) and str(file))):
            raise SparsityError(f"file={file!r} is no path: write file='/path/to/glove.6B.50d.txt', or None for GloVe")
        if layer is not None and not isinstance(layer, str):
            raise SparsityError(f"layer={layer!r} is not the name of a layer: write layer='words', or leave it out")
        listed = isinstance(words, Sequence) and not isinstance(words, str)
        if words is not None and not (listed and all(isinstance(word, str) for word in words)):
            raise SparsityError(f"words={words!r:.60} is not the word of each row: write words=['', '', 'of', 'the']")
        self.file, self.layer = file, layer
        self.directions = None if directions is None else check_count("directions", directions, 0, write=1)
        self.words = words
        self.found: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a second one, and strategies under which no rank has the table."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            refuse_sharded(trainer, "no rank has the whole table")
        if stage == "fit" and any(isinstance(other, AllButTheTop) for other in trainer.callbacks):  # type: ignore[attr-defined]
            raise SparsityError(
                "AllButTheTop beside PretrainedVectors would take the top out of random rows too: leave it out, and write "
                "PretrainedVectors(directions=1)"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the file and fill the rows, unless the training goes on from a checkpoint; masks are made after this."""
        if trainer.ckpt_path is not None or trainer.global_step:
            return
        name, layer, table = plain_table(pl_module, self.layer)
        words = self._words(trainer, name, len(table))
        vectors = word_vectors(self.file, words)
        places = [row for row, word in enumerate(words) if word in vectors]
        asked, self.found = sum(map(bool, words)), len(places)
        where = "GloVe" if self.file is None else f"file={str(self.file)!r}"
        if len(places) < 2:
            raise SparsityError(
                f"{where} has {len(places)} of the {asked} words of {name!r}: give vectors of this language"
            )
        if len(places) < FEW * asked:
            warnings.warn(f"{where} has only {len(places)} of the {asked} words of {name!r}", stacklevel=2)
        found = torch.stack([vectors[words[row]] for row in places])
        if found.shape[1] != table.shape[1]:
            raise SparsityError(
                f"{where} has vectors of {found.shape[1]} dimensions and {name!r} of {table.shape[1]}: write "
                f"dimensions={found.shape[1]} for the network, in a command model.net.dimensions={found.shape[1]}"
            )
        if self.directions is not None:
            found = all_but_the_top(found, self.directions)
        with torch.no_grad():
            layer.weight[places] = _as_long_as(found, table[places]).to(table)
        rank_zero_info(f"PretrainedVectors: {len(places)} of the {asked} words of {name!r} are in {where}")

    def _words(self, trainer: Trainer, name: str, rows: int) -> list[str]:
        if self.words is None:
            known = getattr(getattr(trainer, "datamodule", None), "vocabulary", None)
            if known is None:
                raise SparsityError(
                    "words=None, and the Trainer's data module has no vocabulary: write words=[...], the word of each row of "
                    f"{name!r}, '' where it is none"
                )
            words = ["" for _ in range(UNKNOWN + 1)] + list(known)
        else:
            words = list(self.words)
        if len(words) > rows:
            raise SparsityError(
                f"words=[...] has {len(words)} entries, and {name!r} {rows} rows: give one for each row"
            )
        return words


def _as_long_as(vectors: Tensor, others: Tensor) -> Tensor:
    """Scaled so that their mean length is that of the others, unless one of the two is 0."""
    mine, theirs = vectors.norm(dim=1).mean(), others.norm(dim=1).mean().to(vectors)
    return vectors * (theirs / mine) if mine > 0 and theirs > 0 else vectors
