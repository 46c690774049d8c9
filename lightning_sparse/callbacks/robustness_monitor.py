"""Follow the robustness of a network while it is trained, and its masks change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of
from lightning_sparse.callbacks.trainer.images_of_split import images_of_split
from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.resumed_from import restoring
from lightning_sparse.callbacks.trainer.spawned_state import SpawnedState
from lightning_sparse.engine.masks import sparsity_of
from lightning_sparse.errors import SparsityError, check_choice, check_count, check_seed
from lightning_sparse.measure.advice import advice_for
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import Forward, as_classifier, check_forward
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.normalisation import Normalisation
from lightning_sparse.measure.robustness.radii import check_inputs, check_radii
from lightning_sparse.measure.robustness.robust_accuracy import measure_robustness, try_attack


class RobustnessMonitor(OneOfAKind):
    """Log the robust accuracy of the network that is being trained, against its sparsity.

    It attacks a few hundred images by PGD of 10 steps from one random start, at the end of epochs and of the training. That
    takes seconds, and gives an upper bound that more attacks lower
    (:func:`~lightning_sparse.measure.measure_robustness` with ``tier="sweep"`` or ``"reference"``). Images and seed are the
    same at every look; weights, modes, random states and gradients are left as they were.

    It sends ``robust/monitor/eps_0.1`` (``robust/monitor/L2/eps_1``), the share of all these images that are classified
    correctly both clean and under attack, and ``sparsity`` to the Trainer's loggers; ModelCheckpoint can monitor the former.
    With ``training`` there is ``robust/monitor/train/eps_0.1`` beside it: adversarial training soon raises the one at the
    cost of the other (robust overfitting: Rice et al. 2020, arXiv 2002.11569). Under DDP each rank measures the same images,
    if ``data`` gives every rank the same.

    Args:
        eps: one radius or several: in (0, 1], in units of [0, 1], for L-inf; positive for L2 and ``"embedding"``.
        data: ``(images, labels)``, or a loader of such batches, of which the first ``images`` are taken; use the validation
            split, so that no choice depends on test images. None takes ``split("validation", images)`` of the Trainer's data
            module (:class:`~lightning_sparse.data.ImageData` has it).
        training: images that are trained on and their labels, to attack as well; True takes ``split("train", images)`` of the
            data module. They are attacked as they are, not augmented.
        images: how many at most, of each kind.
        every: look once in this many epochs, and in any case at the end of the training.
        norm: ``"Linf"`` or ``"L2"``; of texts ``"embedding"``.
        mean: per channel, where the images are normalised outside of the module: what was subtracted from the pixels. The
            attack then moves the pixels, eps is in their units, and the module gets normalised images.
        std: per channel, > 0, what divided them after that.
        forward: see :func:`~lightning_sparse.measure.as_classifier`.
        seed: of the random start.

    Raises:
        SparsityError: on arguments out of range; before training, if there are no data, on images that are not in [0, 1]
            (normalised ones need ``mean`` and ``std``), and if the module cannot be attacked.

    Example:
        >>> import torch
        >>> from lightning_sparse import GradualPruning
        >>> images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
        >>> callbacks = [GradualPruning(0.9), RobustnessMonitor(8 / 255, data=(images, labels))]
    """

    instead = "one looks at several radii of one norm, eps=[0.1, 0.2]: leave one out"

    def __init__(
        self,
        eps: float | Sequence[float],
        *,
        data: Data | None = None,
        training: Data | bool = False,
        images: int = 256,
        every: int = 1,
        norm: str = "Linf",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        forward: Forward | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("norm", norm, ("Linf", "L2", "embedding"))
        self.eps = check_radii([eps] if isinstance(eps, int | float) else eps, norm)
        self.data, self.training = data, training
        self.images, self.every = check_count("images", images, write=256), check_count("every", every)
        self.norm, self.forward, self.seed = norm, check_forward(forward), check_seed(seed)
        self.normalisation = Normalisation(mean, std)
        self._rows: list[dict[str, Any]] = []
        self._looked_at: dict[str, tuple[Tensor, Tensor]] = {}
        self._spawned = SpawnedState()

    def rows(self) -> list[dict[str, Any]]:
        """Every look so far, oldest first, a row for each eps.

        A row has ``epoch`` (finished so far), ``step``, ``sparsity``, ``split`` (``"validation"`` or ``"train"``), ``eps``,
        ``robust_accuracy``, its 95 % interval over images ``low`` and ``high`` (Wilson), ``clean_accuracy`` of the same
        images, and their number ``n``.
        """
        sent = self._spawned.receive()
        if sent is not None:
            self.load_state_dict(sent)
        return [dict(row) for row in self._rows]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the images; forget an earlier training, unless this one goes on with it on the same Trainer."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        if trainer.ckpt_path is None and trainer.global_step == 0:
            self._rows = []
        self._looked_at = {"validation": self._images(trainer, "validation", self.data, "data")}
        if self.training is not None and self.training is not False:
            self._looked_at["train"] = self._images(trainer, "train", self.training, "training")

    def _images(self, trainer: Trainer, split: str, given: Data | bool | None, argument: str) -> tuple[Tensor, Tensor]:
        if given is None or isinstance(given, bool):
            images, labels = images_of_split(trainer, split, self.images, argument=argument, given=given)
        else:
            with advice_for("RobustnessMonitor"):
                images, labels = images_and_labels(given, self.images)
        self.normalisation.check(images)
        pixels = self.normalisation.pixels(images)
        with advice_for(type(self).__name__):
            check_images(pixels, labels)
            check_inputs(pixels, self.norm, self.eps[-1])
        return pixels, labels

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Try the images with the highest labels, so that a module that cannot be attacked is refused before training."""
        if any(isinstance(parameter, UninitializedParameter) for parameter in pl_module.parameters()):
            return
        for images, labels in self._looked_at.values():
            few = labels.argsort(descending=True)[:16]
            with advice_for(type(self).__name__):
                try_attack(self._classifier(pl_module), images[few], labels[few], eps=self.eps[-1], norm=self.norm)

    def _classifier(self, module: LightningModule) -> nn.Module:
        return as_classifier(
            module, mean=self.normalisation.numbers("mean"), std=self.normalisation.numbers("std"), forward=self.forward
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, once in ``every`` epochs."""
        if (trainer.current_epoch + 1) % self.every == 0:
            self._look(trainer, pl_module, epoch=trainer.current_epoch + 1)
            for name, value in self._metrics().items():
                pl_module.log(name, value, logger=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the finished network, unless that was just done."""
        if not self._rows or self._rows[-1]["step"] != trainer.global_step:
            self._look(trainer, pl_module, epoch=trainer.current_epoch)

    def _look(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        where = {"epoch": epoch, "step": trainer.global_step, "sparsity": _sparsity(trainer, pl_module)}
        for split, looked_at in self._looked_at.items():
            with advice_for(type(self).__name__):
                measured = measure_robustness(
                    self._classifier(pl_module),
                    looked_at,
                    eps=self.eps,
                    norm=self.norm,
                    tier="monitor",
                    seed=self.seed,
                )
            of_images = {"clean_accuracy": float(measured.arrays["correct"].mean()), "split": split}
            for record in measured.records:
                if record.metric == "robust_accuracy" and record.attack == "worst" and record.eps is not None:
                    found = {"eps": record.eps, "robust_accuracy": record.value, "low": record.low, "high": record.high}
                    self._rows.append({**where, **of_images, **found, "n": record.n})
        for logger in trainer.loggers:
            logger.log_metrics(self._metrics() | {"sparsity": where["sparsity"]}, step=trainer.global_step)

    def _metrics(self) -> dict[str, float]:
        kind = "robust/monitor/" if self.norm == "Linf" else f"robust/monitor/{self.norm}/"
        last = self._rows[-len(self.eps) * len(self._looked_at) :]
        splits = {"validation": kind, "train": f"{kind}train/"}
        return {f"{splits[row['split']]}eps_{row['eps']:.4g}": row["robust_accuracy"] for row in last}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """If this is a spawned process, send the rows home."""
        self._looked_at = {}
        if stage == "fit" and trainer.is_global_zero:
            self._spawned.send(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, loadable with ``weights_only=True``."""
        return {"rows": [dict(row) for row in self._rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        with restoring("RobustnessMonitor"):
            self._rows = [dict(row) for row in state_dict["rows"]]


def _sparsity(trainer: Trainer, pl_module: LightningModule) -> float:
    masks = [callback.masks for callback in callbacks_of(trainer, SparseTraining)]
    if masks:
        return sum(mask.total - mask.living for mask in masks) / sum(mask.total for mask in masks)
    try:
        return sparsity_of(pl_module)
    except SparsityError:  # nothing here that could be sparse
        return 0.0
