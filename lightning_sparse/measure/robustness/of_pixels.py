"""The pixels of images, each moved by no more than eps (L-inf), or all together (L2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from lightning_sparse.measure.robustness.attacks import ATTACKS, attack_detail, attack_name
from lightning_sparse.measure.robustness.balls import random_start, whole_image
from lightning_sparse.measure.robustness.from_torchattacks import SQUARE_NEEDS, nearest
from lightning_sparse.measure.robustness.threat import Threat, Walk


@dataclass(frozen=True)
class OfPixels(Threat):
    """All images within eps in L-inf or L2, with pixels in [0, 1]."""

    what = "images"
    attacks = tuple(ATTACKS)
    once = ("fab-t",)

    @classmethod
    def in_place_of(cls, attack: str, classes: int) -> tuple[str, str]:
        """PGD on the margin instead of DLR, which needs 4 classes."""
        return attack_name(attack, classes), f"needs 4 classes, not {classes}"

    def in_words(self, attack: str, walk: Walk, classes: int) -> str:
        """See :func:`~lightning_sparse.measure.robustness.attacks.attack_detail`."""
        setting = {"steps": walk.steps, "restarts": walk.restarts, "seed": walk.seed}
        return attack_detail(attack, norm=self.norm, classes=classes, **setting)

    def run(
        self, attack: str, classifier: nn.Module, inputs: Tensor, labels: Tensor, walk: Walk
    ) -> tuple[Tensor, Tensor]:
        """Run one of :data:`~lightning_sparse.measure.ATTACKS`."""
        return ATTACKS[attack](classifier, inputs, labels, norm=self.norm, **walk._asdict())

    def nearest(self, attack: str, classifier: nn.Module, inputs: Tensor, labels: Tensor, walk: Walk) -> Tensor:
        """The distances that FAB finds."""
        _, away = nearest(classifier, inputs, labels, norm=self.norm, steps=walk.steps, enough=walk.eps)
        return away

    def unmoved(self, inputs: Tensor) -> Tensor:
        """The images."""
        return inputs.detach().float().cpu().clone()

    def around(self, classifier: nn.Module, inputs: Tensor, eps: float) -> Tensor:
        """At points of the ball drawn as PGD's starts are."""
        here = inputs.detach()
        logits: Tensor = classifier(inputs + (random_start(here, eps, self.norm) - here))
        return logits

    def everything(self, inputs: Tensor) -> float:
        """1 in L-inf, the length of a white image in L2."""
        return whole_image(inputs, self.norm)


def of_pixels(norm: str, images: Tensor) -> OfPixels:
    """Make it for images (n, C, H, W) of one size."""
    if norm == "L2" and min(images.shape[2:]) < SQUARE_NEEDS:
        return OfPixels(norm, {"black_box": f"Square in L2 needs images of at least {SQUARE_NEEDS} pixels a side"})
    return OfPixels(norm)
