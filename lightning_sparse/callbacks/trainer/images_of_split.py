"""The images that a callback looks at by default."""

from __future__ import annotations

from lightning.pytorch import Trainer
from torch import Tensor

from lightning_sparse.anatomy.isolation import fork_random_states
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.images_and_labels import Data, images_and_labels


def images_of_split(
    trainer: Trainer, name: str, most: int, *, argument: str, given: bool | None = None
) -> tuple[Tensor, Tensor]:
    """Return images and labels of the data module's ``split(name, most)``, drawing nothing from the global random states.

    Raises:
        SparsityError: if there is no such method; it names ``argument``, which takes images instead of what was ``given``.
    """
    split = getattr(getattr(trainer, "datamodule", None), "split", None)
    if split is None:
        raise SparsityError(
            f"{argument}={given} takes images of the Trainer's data module, and it has none with split(name, most): "
            f"write {argument}=(images, labels), or a loader of such batches"
        )
    with fork_random_states(0):
        return images_and_labels(split(name, most))


def probe_of(trainer: Trainer | None, probe: Data | None, most: int) -> tuple[Tensor, Tensor]:
    """Return the images of a ``probe=``, or, without one, at most so many training images of the data module."""
    if probe is None and trainer is not None:
        return images_of_split(trainer, "train", most, argument="probe")
    return images_and_labels(() if probe is None else probe)
