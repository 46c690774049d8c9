"""Resume a run with the random numbers that it would have drawn."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer

from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.private import make_loader_anew
from lightning_sparse.errors import SparsityError

KEPT = {"python", "numpy", "torch"}


class RandomState(OneOfAKind):
    """Save the global random states in every checkpoint, and restore them on resume.

    Lightning saves none, so that dropout, shuffling and augmentation go on with other numbers after a resume. With this
    callback and torch's DataLoader a run resumed at an epoch's end equals the run that was never stopped, bit for bit; one
    resumed in mid-epoch does so if its loader has a ``state_dict`` (as torchdata's StatefulDataLoader) that says where it is.
    Workers of a DataLoader draw their seeds from these states too.

    It saves the states of Python's ``random``, of numpy, of torch on the CPU and of the current CUDA device, on each rank.

    Example:
        >>> from lightning_sparse import GradualPruning, RandomState
        >>> callbacks = [GradualPruning(0.9), RandomState()]
    """

    def __init__(self) -> None:
        super().__init__()
        self._ranks: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the random states of the checkpoint, and start the loader again if it begins an epoch."""
        if len(self._ranks) == trainer.world_size:
            _restore(self._ranks[trainer.global_rank])
            progress = trainer.fit_loop.epoch_loop.batch_progress
            if progress.current.ready == 0 or progress.is_last_batch:  # at an epoch's end
                make_loader_anew(trainer)
        self._ranks = []

    def state_dict(self) -> dict[str, Any]:
        """The states of every rank, as tensors, numbers and lists."""
        here = _capture()
        if not (dist.is_available() and dist.is_initialized()):
            return {"ranks": [here]}
        ranks: list[dict[str, Any]] = [{}] * dist.get_world_size()
        dist.all_gather_object(ranks, here)
        return {"ranks": ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts."""
        ranks = state_dict.get("ranks")
        if not isinstance(ranks, list) or not all(isinstance(rank, dict) and rank.keys() >= KEPT for rank in ranks):
            raise SparsityError(
                "the checkpoint's random states are damaged: take another checkpoint, or leave RandomState out to go on with "
                "other random numbers"
            )
        self._ranks = ranks


def _capture() -> dict[str, Any]:
    version, numbers, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "python": [version, list(numbers), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
