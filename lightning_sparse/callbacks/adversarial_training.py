"""Train on adversarial images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F

from lightning_sparse.callbacks.changes_images import ChangesImages, check_place, part_of
from lightning_sparse.callbacks.trainer.attack_mode import attack_mode, seeded
from lightning_sparse.callbacks.trainer.refusals import refuse_sharded
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.measure.advice import advice_for, with_forward
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import Forward, check_forward
from lightning_sparse.measure.normalisation import Normalisation
from lightning_sparse.measure.outputs import check_logits
from lightning_sparse.measure.robustness.balls import check_eps, check_norm, project, random_start, steepest


class AdversarialTraining(ChangesImages):
    """Train on adversarial images in place of the clean ones, on any Trainer and beside any sparsity callback.

    Before each training step every image of the batch is moved, by at most eps and within [0, 1], to raise the
    cross-entropy of the network as it is then. One step is FGSM from a random start, 1.25 eps long (Wong, Rice & Kolter
    2020, "Fast is better than free", arXiv 2001.03994); several are PGD, each 2.5 eps / steps long (Madry et al. 2018,
    "Towards deep learning models resistant to adversarial attacks", arXiv 1706.06083). Unlike an attack that measures, it
    does not stop when an image is classified wrongly. Validation and test see clean images.

    *What is attacked.* The module in eval mode, without Dropout's noise and without updating BatchNorm's statistics; the
    step itself runs in training mode. The attack runs in the Trainer's precision, except that float16 autocast, in which
    small gradients are 0, becomes float32. Half-precision images are rounded once more at the end, which may move them beyond
    eps by half a unit in the last place.

    *What stays as it was.* Parameters' gradients, modules' modes, BatchNorm's statistics, and the global random states of
    torch: the noise is a function of seed, epoch, batch and rank, so that a resumed run goes on bit for bit and each device
    draws its own. The batch's memory may be the data set's, so nothing is written into it: the tensor of the images points
    to the adversarial ones during the step, and back to its own afterwards. A score of the whole network (SNIP, GraSP,
    SynFlow) reads clean batches before the first step; later it reads the current batch as it is trained on, and earlier
    ones clean.

    Cost: ``steps`` forward and as many backward passes, without the weights' gradients, on top of the step's own.
    :class:`~lightning_sparse.SparsityMonitor` does not count them.

    Args:
        eps: how far an image may be moved: in units of [0, 1] for L-inf, in (0, 1]; the L2 length, positive, for L2.
        steps: 1 for FGSM, more for PGD.
        step_size: in the units of eps; None is 1.25 * eps for one step, 2.5 * eps / steps for several.
        norm: ``"Linf"`` or ``"L2"``.
        images: where the images are in a batch: the index in a tuple or list, or the key of a dict.
        labels: where the class numbers are, likewise.
        mean: per channel, where the loader's images are normalised: what was subtracted from the pixels. The attack then
            moves the pixels, eps is in their units, and the module gets the adversarial images normalised again.
        std: per channel, > 0, what divided them after that.
        forward: ``forward(module, images) -> logits`` for a module whose ``forward`` gives something else.
        seed: seed of the random starts.

    Raises:
        SparsityError: on arguments out of range; before training, on a Trainer whose batches cannot be attacked; at the first
            batch of an epoch, on images that are not floats in [0, 1] (normalised ones need ``mean`` and ``std``), labels
            that are not classes, and outputs that are not logits.

    Example:
        >>> from lightning_sparse import GradualPruning
        >>> callbacks = [GradualPruning(0.9), AdversarialTraining(8 / 255)]
    """

    names = ("eps", "steps", "step_size", "norm", "seed", "mean", "std")
    done = "attacked"

    def __init__(
        self,
        eps: float,
        *,
        steps: int = 1,
        step_size: float | None = None,
        norm: str = "Linf",
        images: int | str = 0,
        labels: int | str = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        forward: Forward | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(images, seed)
        self.norm = check_norm(norm)
        self.eps, self.steps = check_eps("eps", eps, norm), check_count("steps", steps, write=20)
        if step_size is None:
            self.step_size = 1.25 * self.eps if steps == 1 else 2.5 * self.eps / steps
        else:
            self.step_size = check_eps("step_size", step_size, norm)
        self.labels = check_place("labels", labels)
        self.normalisation = Normalisation(mean, std)
        self.forward = check_forward(forward)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a training whose batches cannot be attacked."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            refuse_sharded(trainer, "the module cannot be attacked by itself")

    def change(self, trainer: Trainer, module: LightningModule, batch: Any, images: Tensor, batch_idx: int) -> Tensor:
        """Attack the images."""
        labels = part_of(batch, "labels", self.labels)
        with (
            advice_for("AdversarialTraining"),
            trainer.precision_plugin.forward_context(),
            attack_mode(module),
            seeded(images.device, self.draws(trainer, batch_idx)),
        ):
            return self._attack(module, images.detach(), labels, check=batch_idx == 0)

    def _attack(self, module: LightningModule, images: Tensor, labels: Tensor, check: bool) -> Tensor:
        # In float32 at least, whatever the model takes: a step of bfloat16 near 1 is 1/256.
        shaped = images if images.dim() == 4 else images.reshape(len(images), 1, 1, -1)
        check = check and len(images) > 0
        if check:
            self.normalisation.check(shaped)
        clean = self.normalisation.pixels(shaped.to(torch.promote_types(images.dtype, torch.float32)))
        if check:
            check_images(clean if images.is_floating_point() else shaped, labels)
        point = random_start(clean, self.eps, self.norm)
        for step in range(self.steps):
            point.requires_grad_(True)
            inputs = self.normalisation.normalised(point).reshape(images.shape).to(images.dtype)
            logits: Tensor = module(inputs) if self.forward is None else self.forward(module, inputs)
            if check and step == 0:
                check_images(clean, labels, classes=check_logits(logits).shape[1])
                if not logits.requires_grad:
                    raise SparsityError(
                        "the logits have no gradient with respect to the images: let forward run without no_grad and detach, "
                        f"or write {with_forward('...')} with a call that keeps the gradient"
                    )
            # Summed, so that an image's gradient does not depend on how many others share its batch.
            loss = F.cross_entropy(logits.float(), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, point)
            point = project(point.detach() + self.step_size * steepest(gradient, self.norm), clean, self.eps, self.norm)
        # With the strides of the clean images: compiled steps are guarded by them.
        return torch.empty_like(images).copy_(self.normalisation.normalised(point.detach()).reshape(images.shape))

    @property
    def mean(self) -> list[float] | None:
        """What the loader subtracts from the pixels, per channel."""
        return self.normalisation.numbers("mean")

    @property
    def std(self) -> list[float] | None:
        """What the loader divides them by, per channel."""
        return self.normalisation.numbers("std")
