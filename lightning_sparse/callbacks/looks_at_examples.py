"""What callbacks share that follow the training images, one by one, from epoch to epoch."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_sparse.callbacks.looks_at_images import LooksAtImages
from lightning_sparse.callbacks.trainer.resumed_from import restoring
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.classifier import Forward
from lightning_sparse.measure.examples.history import ExampleHistory
from lightning_sparse.measure.examples.look import Look, look_at


class LooksAtExamples(LooksAtImages):
    """Adds what it sees when an epoch ends, a forward and two backward passes on rank zero, to its histories.

    A subclass says which histories an epoch belongs to (``due``).
    """

    def __init__(
        self, batch_size: int, mean: list[float] | None, std: list[float] | None, forward: Forward | None
    ) -> None:
        super().__init__(batch_size, mean, std, forward)
        self.forget()

    def forget(self) -> None:
        """Forget an earlier training."""
        self._histories: dict[str, ExampleHistory] = {}
        self._epochs: dict[str, list[int]] = {}

    def due(self, trainer: Trainer) -> list[str]:
        """Names of the histories that this epoch's look belongs to; none: no look is needed."""
        raise NotImplementedError

    def see(self, classifier: nn.Module, images: Tensor, labels: Tensor) -> Look:
        """See logits and gradients."""
        return look_at(classifier, images, labels, batch_size=self.batch_size)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, once an epoch: a run that resumes from a validation at an epoch's end comes here again."""
        epoch = trainer.current_epoch
        names = [name for name in self.due(trainer) if epoch not in self._epochs.get(name, ())]
        if not (names and trainer.is_global_zero):
            return
        assert self._images is not None
        seen = self.look(pl_module, *self._images)
        for name in names:
            self._histories.setdefault(name, ExampleHistory(*self._images)).add(seen)
            self._epochs.setdefault(name, []).append(epoch)

    def state_dict(self) -> dict[str, Any]:
        """All looks so far, loadable with ``weights_only=True``."""
        return {
            "images": self.digest(),
            "histories": {name: history.state_dict() for name, history in self._histories.items()},
            "epochs": {name: list(epochs) for name, epochs in self._epochs.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave.

        Raises:
            SparsityError: if images or labels are not those of the checkpoint.
        """
        name = type(self).__name__
        images, labels = self._images or self.images_read(None)
        with restoring(name):
            if state_dict["images"] not in ("", self.digest()):
                raise SparsityError(
                    f"the checkpoint's {name} looked at other images or labels: resume with the same, in the same order"
                )
            self._histories = {key: ExampleHistory(images, labels) for key in state_dict["histories"]}
            for key, history in self._histories.items():
                history.load_state_dict(state_dict["histories"][key])
            self._epochs = {key: list(epochs) for key, epochs in state_dict["epochs"].items()}
