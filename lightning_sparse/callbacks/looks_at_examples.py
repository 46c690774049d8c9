"""What callbacks share that look at the training images after epochs."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.refusals import refuse_sharded
from lightning_sparse.callbacks.trainer.resumed_from import restoring
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.measure.advice import advice_for
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import Forward, as_classifier, check_forward, check_normalisation
from lightning_sparse.measure.examples.history import ExampleHistory
from lightning_sparse.measure.examples.look import Look, look_at


class LooksAtExamples(OneOfAKind):
    """Looks at fixed training images when an epoch ends, on rank zero, and adds what it saw to its histories.

    A look is a forward and two backward passes, in eval mode, of images that are never augmented. It draws no random number
    and changes nothing. A subclass says which images (``read``) and which histories an epoch belongs to (``due``).
    """

    def __init__(
        self, batch_size: int, mean: list[float] | None, std: list[float] | None, forward: Forward | None
    ) -> None:
        super().__init__()
        self.batch_size = check_count("batch_size", batch_size, write=256)
        check_normalisation(mean, std)
        self._how: dict[str, Any] = {"mean": mean, "std": std, "forward": check_forward(forward)}
        self._images: tuple[Tensor, Tensor] | None = None
        self._histories: dict[str, ExampleHistory] = {}
        self._epochs: dict[str, list[int]] = {}

    def read(self, trainer: Trainer | None) -> tuple[Tensor, Tensor]:
        """Return the images and labels."""
        raise NotImplementedError

    def due(self, trainer: Trainer) -> list[str]:
        """Names of the histories that this epoch's look belongs to; none: no look is needed."""
        raise NotImplementedError

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the images, and forget an earlier training unless this one goes on with it on the same Trainer."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        name = type(self).__name__
        refuse_sharded(trainer, f"{name} cannot run the whole model")
        images, labels = self.read(trainer)
        with advice_for(name):
            check_images(images, labels)
        self._images = images.detach().cpu().float(), labels.detach().cpu()
        if not (trainer.ckpt_path is None and trainer.global_step > 0):
            self._histories, self._epochs = {}, {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Try a few images, those with the highest labels, so that what cannot work fails before the training."""
        assert self._images is not None
        few = self._images[1].argsort(descending=True)[:32]
        self._look(pl_module, self._images[0][few], self._images[1][few])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, once an epoch: a run that resumes from a validation at an epoch's end comes here again."""
        epoch = trainer.current_epoch
        names = [name for name in self.due(trainer) if epoch not in self._epochs.get(name, ())]
        if not (names and trainer.is_global_zero):
            return
        assert self._images is not None
        seen = self._look(pl_module, *self._images)
        for name in names:
            self._histories.setdefault(name, ExampleHistory(*self._images)).add(seen)
            self._epochs.setdefault(name, []).append(epoch)

    def _look(self, model: LightningModule, images: Tensor, labels: Tensor) -> Look:
        classifier = as_classifier(model, **self._how)
        with (
            advice_for(type(self).__name__),
            torch.compiler.set_stance("force_eager"),  # otherwise eval mode would be compiled for this alone
        ):
            return look_at(classifier, images, labels, batch_size=self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """All looks so far, loadable with ``weights_only=True``."""
        return {
            "images": self._digest(),
            "histories": {name: history.state_dict() for name, history in self._histories.items()},
            "epochs": {name: list(epochs) for name, epochs in self._epochs.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave.

        Raises:
            SparsityError: if images or labels are not those of the checkpoint.
        """
        name = type(self).__name__
        if self._images is None:
            images, labels = self.read(None)
            self._images = images.detach().cpu().float(), labels.detach().cpu()
        with restoring(name):
            if state_dict["images"] not in ("", self._digest()):
                raise SparsityError(
                    f"the checkpoint's {name} looked at other images or labels: resume with the same, in the same order"
                )
            self._histories = {key: ExampleHistory(*self._images) for key in state_dict["histories"]}
            for key, history in self._histories.items():
                history.load_state_dict(state_dict["histories"][key])
            self._epochs = {key: list(epochs) for key, epochs in state_dict["epochs"].items()}

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for part in self._images or ():
            digest.update(repr(tuple(part.shape)).encode() + part.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16] if self._images else ""
