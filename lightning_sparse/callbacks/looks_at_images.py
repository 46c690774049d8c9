"""What callbacks share that look at fixed images while a network trains."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_sparse.anatomy.tokens import are_tokens
from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.refusals import refuse_sharded
from lightning_sparse.errors import check_count
from lightning_sparse.measure.advice import advice_for
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import Forward, as_classifier, check_forward, check_normalisation


class LooksAtImages(OneOfAKind):
    """Looks, in eval mode, at images that are never augmented; it draws no random number and changes nothing.

    A subclass says which images (``read``), what is seen of them (``see``), and what it forgets before another training.
    """

    def __init__(
        self, batch_size: int, mean: list[float] | None, std: list[float] | None, forward: Forward | None
    ) -> None:
        super().__init__()
        self.batch_size = check_count("batch_size", batch_size, write=256)
        check_normalisation(mean, std)
        self._how: dict[str, Any] = {"mean": mean, "std": std, "forward": check_forward(forward)}
        self._images: tuple[Tensor, Tensor] | None = None

    def read(self, trainer: Trainer | None) -> tuple[Tensor, Tensor]:
        """Return the images and labels."""
        raise NotImplementedError

    def see(self, classifier: nn.Module, images: Tensor, labels: Tensor) -> Any:
        """Return what is to be seen of some images."""
        raise NotImplementedError

    def forget(self) -> None:
        """Forget an earlier training."""
        raise NotImplementedError

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the images, and forget an earlier training unless this one goes on with it on the same Trainer."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        name = type(self).__name__
        refuse_sharded(trainer, f"{name} cannot run the whole model")
        images, labels = self.images_read(trainer)
        with advice_for(name):
            check_images(images, labels)
        if not (trainer.ckpt_path is None and trainer.global_step > 0):
            self.forget()

    def images_read(self, trainer: Trainer | None) -> tuple[Tensor, Tensor]:
        """The images and labels, read anew, on the CPU."""
        images, labels = self.read(trainer)
        images = images.detach().cpu()
        self._images = images if are_tokens(images) else images.float(), labels.detach().cpu()
        return self._images

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Try a few images, those with the highest labels, so that what cannot work fails before the training."""
        assert self._images is not None
        few = self._images[1].argsort(descending=True)[:32]
        self.look(pl_module, self._images[0][few], self._images[1][few])

    def look(self, model: LightningModule, images: Tensor, labels: Tensor) -> Any:
        """See what a model makes of some images."""
        classifier = as_classifier(model, **self._how)
        with (
            advice_for(type(self).__name__),
            torch.compiler.set_stance("force_eager"),  # otherwise eval mode would be compiled for this alone
        ):
            return self.see(classifier, images, labels)

    def digest(self) -> str:
        """What tells the images and labels from others; empty before they are read."""
        if self._images is None:
            return ""
        found = hashlib.sha256()
        for part in self._images:
            found.update(repr(tuple(part.shape)).encode() + part.contiguous().numpy().tobytes())
        return found.hexdigest()[:16]
