"""What callbacks share that put other images into a training batch for the length of its step."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.resumed_from import restoring
from lightning_sparse.errors import SparsityError, check_seed

_CLEAN = "_lightning_sparse_clean"  # of a batch's images, while others are in their place: the memory that is theirs


class ChangesImages(OneOfAKind):
    """Lets the tensor of a batch's images point to others during a training step, and back to its own memory afterwards.

    The batch's memory may be the data set's, so nothing is written into it. Several callbacks may do so one after another, in
    their order; whichever ends first gives the batch its own images back.

    Args:
        images: where the images are in a batch: the index in a tuple or list, or the key of a dict.
        seed: what is drawn is a function of it, the epoch, the batch and the rank, so that there is no state to resume from.
    """

    names: ClassVar[tuple[str, ...]] = ()
    """The arguments that the images depend on: a training goes on with the same alone."""
    stream: ClassVar[tuple[int, ...]] = ()
    """Tells the draws of one callback from those of another of the same seed."""
    done: ClassVar[str] = "changed"
    """What is done to the images, as messages say it."""

    def __init__(self, images: int | str, seed: int) -> None:
        super().__init__()
        self.images, self.seed = check_place("images", images), check_seed(seed)
        self._changed: Tensor | None = None
        self._restored: dict[str, Any] = {}

    def change(self, trainer: Trainer, module: LightningModule, batch: Any, images: Tensor, batch_idx: int) -> Tensor:
        """Return what stands in for the images: as many, of the same shape and type."""
        raise NotImplementedError

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a training whose batches cannot be changed."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        if trainer.ckpt_path is None:
            self._restored = {}
        if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
            raise SparsityError(
                f"training_step takes a dataloader_iter, so its batches cannot be {self.done} beforehand: write "
                "training_step(self, batch, batch_idx)"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to go on from a checkpoint that was trained on images changed in another way."""
        for name, value in self._restored.items():
            now = self.state_dict()[name]
            if now != value:
                raise SparsityError(
                    f"{name}={now!r}, and the checkpoint was trained with {name}={value!r}: resume with "
                    "the same, or start a new training from its weights (without ckpt_path)"
                )
        self._restored = {}

    def draws(self, trainer: Trainer, batch_idx: int) -> np.random.SeedSequence:
        """What the random numbers of a batch come from."""
        return np.random.SeedSequence(
            (self.seed, trainer.current_epoch, batch_idx, trainer.global_rank), spawn_key=self.stream
        )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Change the batch that ``training_step`` is about to see."""
        self._put_back()
        images = part_of(batch, "images", self.images)
        changed = self.change(trainer, pl_module, batch, images, batch_idx)
        if not hasattr(images, _CLEAN):
            setattr(images, _CLEAN, images.data)
        self._changed, images.data = images, changed

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Give the batch its own images back."""
        self._put_back()

    # A module may also skip the rest of an epoch, or fail, in the middle of a batch.
    on_train_epoch_end = on_exception = teardown = on_train_batch_end

    def _put_back(self) -> None:
        if self._changed is not None and hasattr(self._changed, _CLEAN):
            self._changed.data = getattr(self._changed, _CLEAN)
            delattr(self._changed, _CLEAN)
        self._changed = None

    def state_dict(self) -> dict[str, Any]:
        """The arguments that the images depend on: there is no other state."""
        return {name: getattr(self, name) for name in self.names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the checkpoint's arguments, to compare when training starts."""
        with restoring(type(self).__name__):
            self._restored = {name: value for name, value in dict(state_dict).items() if name in self.state_dict()}


def check_place(argument: str, place: int | str) -> int | str:
    """Return a place in a batch if it is one."""
    if isinstance(place, bool) or not isinstance(place, int | str):
        default = {"images": 0, "labels": 1}[argument]
        raise SparsityError(
            f"{argument}={place!r} is no place in a batch: write {argument}={default}, an index in a tuple or list, or the "
            "key of a dict"
        )
    return place


def part_of(batch: Any, argument: str, place: int | str) -> Tensor:
    """Return the tensor at a place in a batch.

    Example:
        >>> import torch
        >>> part_of({"x": torch.zeros(2)}, "images", "x")
        tensor([0., 0.])
    """
    try:
        found = None if isinstance(batch, Tensor) else batch[place]
    except (KeyError, IndexError, TypeError):
        found = None
    if not isinstance(found, Tensor):
        what = "nothing" if found is None else f"a {type(found).__name__}"
        keys = f" with keys {', '.join(repr(key) for key in batch)}" if isinstance(batch, dict) else ""
        raise SparsityError(
            f"{argument}={place!r} finds {what} in a batch that is a {type(batch).__name__}{keys}, but needs a tensor: write "
            "images= and labels=, the index or key of each, and combine several loaders into one"
        )
    return found
