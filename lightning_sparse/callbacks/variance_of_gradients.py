"""Follow the variance of gradients (VOG) of fixed images while a network trains."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_sparse.callbacks.looks_at_images import LooksAtImages
from lightning_sparse.callbacks.trainer.images_of_split import probe_of
from lightning_sparse.callbacks.trainer.resumed_from import restoring
from lightning_sparse.callbacks.trainer.windows import check_window, windows_of
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.extras import need
from lightning_sparse.measure.classifier import Forward
from lightning_sparse.measure.forgetting.gradient_variance import (
    GradientVariance,
    class_normalised,
    rank_stability,
    stability_record,
    true_class_gradients,
    vog_record,
)
from lightning_sparse.measure.images_and_labels import Data
from lightning_sparse.results.records import Measured

ARRAYS = {"whole": "vog", "early": "vog_early", "late": "vog_late"}  # by window


class VarianceOfGradients(LooksAtImages):
    """Find the images that stay difficult, by how much the gradient of their class's logit changes from epoch to epoch.

    Agarwal, D'souza & Hooker 2022 (arXiv 2008.11600), see :class:`~lightning_sparse.measure.GradientVariance`. At the end of
    a training epoch it looks, in eval mode, at images that are never augmented, and keeps three statistics: of the whole
    training, of its early and of its late part. Cost: a forward and a backward pass of the images a look, and 24 bytes a
    pixel, also in a checkpoint. It draws no random number that training would draw, and changes nothing.

    It logs ``vog/rank_stability`` from the third look on: Spearman's correlation of the images' scores with those of the look
    before. Both scores share all looks but the last, so that it approaches 1 by itself as looks accumulate.

    Under DDP rank zero looks and all ranks log; :meth:`measured` is rank zero's.

    Args:
        probe: ``(images, labels)``, or a loader of such batches, used whole: floats in [0, 1], shape (n, C, H, W). None takes
            training images of the Trainer's data module, if it has a ``split(name, most)`` as ours has.
        images: how many training images at most, without a probe.
        every: epochs between two looks, an int >= 1.
        window: the share of the training, in (0, 0.5], that is early, and that is late: epochs that end within the first
            ``window`` of ``max_epochs`` (or ``max_steps``), or within the last. The paper's first example uses thirds. A
            training without a known end has neither.
        batch_size: images per pass.
        mean: as in :func:`~lightning_sparse.measure.as_classifier`.
        std: as in ``as_classifier``.
        forward: as in ``as_classifier``.

    Raises:
        SparsityError: for arguments out of range; before training, for images that the model cannot classify.

    Example:
        >>> import torch
        >>> from lightning_sparse import GradualPruning
        >>> images, labels = torch.rand(100, 1, 8, 8), torch.randint(0, 10, (100,))
        >>> callbacks = [GradualPruning(0.9), VarianceOfGradients((images, labels))]
    """

    def __init__(
        self,
        probe: Data | None = None,
        *,
        images: int = 256,
        every: int = 1,
        window: float = 1 / 3,
        batch_size: int = 256,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        forward: Forward | None = None,
    ) -> None:
        super().__init__(batch_size, mean, std, forward)
        self.probe, self.window = probe, check_window(window)
        self.images, self.every = check_count("images", images, write=256), check_count("every", every)
        self.forget()

    def forget(self) -> None:
        """Forget an earlier training."""
        self._following = {name: GradientVariance() for name in ARRAYS}
        self._looks: dict[str, list[int]] = {name: [] for name in ARRAYS}  # after which epochs
        self._stability: list[float] = []  # one for each look

    def read(self, trainer: Trainer | None) -> tuple[Tensor, Tensor]:
        """Return the probe, or images of the data module."""
        return probe_of(trainer, self.probe, self.images)

    def see(self, classifier: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """See the gradients of the true class's logit."""
        return true_class_gradients(classifier, images, labels, batch_size=self.batch_size)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the images, and forget an earlier training unless this one goes on with it on the same Trainer."""
        if stage == "fit":
            need("scipy.stats")
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, and log how stable the order of the images is."""
        epoch = trainer.current_epoch
        if (epoch + 1) % self.every:
            return
        stability = float("nan")
        if trainer.is_global_zero:
            # A run resumed from a checkpoint of the validation at an epoch's end looks at that epoch again.
            if epoch not in self._looks["whole"]:
                self._add(trainer, pl_module, epoch)
            stability = self._stability[self._looks["whole"].index(epoch)]
        stability = trainer.strategy.broadcast(stability)
        if not math.isnan(stability):
            pl_module.log("vog/rank_stability", stability, on_step=False, on_epoch=True, sync_dist=True)

    def _add(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        assert self._images is not None
        gradients = self.look(pl_module, *self._images)
        before = self._following["whole"].scores()
        for name in ("whole", *windows_of(trainer, self.window)):
            self._following[name].add(gradients)
            self._looks[name].append(epoch)
        self._stability.append(rank_stability(before, self._following["whole"].scores()))

    def measured(self) -> Measured:
        """Return what the training has shown so far.

        Returns:
            Records: ``vog_rank_stability``, in [-1, 1], of the last look, and of each (condition ``"epoch 3"``, from 0 as
            Lightning counts); ``vog_mean`` over images, of the whole training and with condition ``"early"`` and
            ``"late"``. Arrays: ``vog``, ``vog_early``, ``vog_late``, (n,) float64, NaN with fewer than two looks;
            ``vog_in_class``, the first normalised by class; ``labels``; ``images``, float16.

        Raises:
            SparsityError: before the first look, and on ranks other than zero.
        """
        if self._images is None and self.probe is not None:  # the training was another process's
            self.images_read(None)
        if self._images is None or not self._stability:
            raise SparsityError("no epoch has been looked at: call measured() after trainer.fit(), on rank zero")
        images, labels = self._images
        epochs, values = self._looks["whole"], self._stability
        records = [stability_record(values[-1], len(labels), epochs)]
        for i, (epoch, value) in enumerate(zip(epochs, values, strict=True)):
            record = stability_record(value, len(labels), epochs[: i + 1])
            records.append(replace(record, condition=f"epoch {epoch}"))
        arrays = {}
        for name, following in self._following.items():
            record, scores = vog_record(following, self._looks[name]), following.scores()
            records.append(record if name == "whole" else replace(record, condition=name))
            arrays[ARRAYS[name]] = scores if scores.size else np.full(len(labels), np.nan)
        arrays["vog_in_class"] = class_normalised(arrays["vog"], labels)
        others = {"labels": labels.numpy(), "images": images.half().numpy()}
        return Measured(records, arrays | others)

    def state_dict(self) -> dict[str, Any]:
        """All looks so far, loadable with ``weights_only=True``."""
        following = {name: one.state_dict() for name, one in self._following.items()}
        looks = {name: list(epochs) for name, epochs in self._looks.items()}
        return {"plan": self._plan(), "following": following, "looks": looks, "stability": list(self._stability)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave.

        Raises:
            SparsityError: if images, ``every`` or ``window`` are not those of the checkpoint.
        """
        with restoring("VarianceOfGradients"):
            plan = state_dict["plan"]
        if self._images is not None and plan != self._plan():
            raise SparsityError(
                f"the checkpoint's VarianceOfGradients was {plan}, and this one is {self._plan()}: resume with "
                "the same images in the same order (a loader must not shuffle by a generator of its own), every and window"
            )
        self.forget()
        with restoring("VarianceOfGradients"):
            for name, following in state_dict["following"].items():
                self._following[name].load_state_dict(following)
                self._looks[name] = list(state_dict["looks"][name])
            self._stability = list(state_dict["stability"])

    def _plan(self) -> dict[str, Any]:
        return {"images": self.digest(), "every": self.every, "window": self.window}
