"""Remove what all rows of an embedding share before magnitudes decide which of its weights live."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.refusals import refuse_sharded
from lightning_sparse.callbacks.trainer.resumed_from import restoring
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.measure.embeddings.all_but_the_top import all_but_the_top
from lightning_sparse.measure.embeddings.tables import plain_table

PRUNED = 0.01  # of the weights in rows that are not zeros: a table with more zeros than that has been pruned


class AllButTheTop(OneOfAKind):
    """Take the mean and the top directions out of a pretrained embedding, once, before the first step and the first mask.

    :func:`~lightning_sparse.measure.all_but_the_top`, after Mu & Viswanath 2018 (arXiv 1702.01417). Pruning by magnitude
    keeps what is large, and in a table of word vectors much of that is what all words share. Give it beside a sparsity
    callback whose ``include`` names the embedding; the place in the list does not matter. Once masks bite nothing is
    subtracted any more, because that would fill the zeros. It is for tables that were trained before; what it gives and
    costs is in docs/language.md.

    The network computes something else afterwards, and learns with the first steps to do without. A row of padding stays as
    it is; a tied output layer is changed with its embedding. A training resumed from a checkpoint removes nothing again.

    Args:
        layer: name of the ``nn.Embedding`` (or ``nn.EmbeddingBag``) in the module; None takes the largest.
        directions: how many; None is a hundredth of the dimensions, at least 1; 0 removes the mean alone.
        fit: how many of the first rows, the most frequent words, mean and directions are fitted on; None takes all.

    Attributes:
        removed: the share of the squared length of all vectors that went, in [0, 1]; None before training, and after one
            in spawned processes.

    Raises:
        SparsityError: on arguments out of range; before the first step, on a module without such an embedding, and on a
            table that has been pruned already.

    Example:
        >>> from lightning_sparse import AllButTheTop, GradualPruning
        >>> callbacks = [AllButTheTop(directions=1), GradualPruning(0.9, include=["embedding.weight"])]
    """

    def __init__(self, layer: str | None = None, directions: int | None = None, fit: int | None = None) -> None:
        super().__init__()
        if layer is not None and not isinstance(layer, str):
            raise SparsityError(f"layer={layer!r} is not the name of a layer: write layer='embedding', or leave it out")
        self.layer = layer
        self.directions = None if directions is None else check_count("directions", directions, 0, write=1)
        self.fit = None if fit is None else check_count("fit", fit, write=50_000)
        self.removed: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew with a training that begins."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            refuse_sharded(trainer, "the mean is not one of all rows")
        if stage == "fit" and trainer.ckpt_path is None and trainer.global_step == 0:
            self.removed = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the top, unless a checkpoint says that it is gone; masks are made after this."""
        if self.removed is not None:
            return
        name, layer, table = plain_table(pl_module, self.layer)
        kept = torch.ones(len(table), dtype=torch.bool, device=table.device)
        if layer.padding_idx is not None:
            kept[layer.padding_idx] = False
        before = table[kept]
        living = before[(before != 0).any(1)]
        zeros = float((living == 0).double().mean()) if len(living) else 0.0
        if zeros > PRUNED:
            raise SparsityError(
                f"{zeros:.0%} of the weights of {name!r} are zero, and subtracting a mean would fill them: remove the top "
                "before the embedding is pruned, or leave AllButTheTop out"
            )
        after = all_but_the_top(before, self.directions, self.fit)
        with torch.no_grad():
            layer.weight[kept] = after
        self.removed = 1 - float(after.double().square().sum() / before.double().square().sum())
        rank_zero_info(
            f"AllButTheTop: {self.removed:.0%} of the squared length of {len(before)} vectors of {name!r} was what they share"
        )

    def state_dict(self) -> dict[str, Any]:
        """How much was removed."""
        return {"removed": self.removed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember it."""
        with restoring("AllButTheTop"):
            self.removed = state_dict["removed"]
