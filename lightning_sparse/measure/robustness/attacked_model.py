"""A classifier with the images or texts it is attacked on: any attack on any of them, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import device_of
from lightning_sparse.measure.classifier import batches
from lightning_sparse.measure.robustness.threat import Threat, Walk

CONTINUED = ("pgd", "pgd-margin")


@dataclass(frozen=True)
class AttackedModel:
    """What is attacked.

    Attributes:
        classifier: pixels in [0, 1], or tokens, to logits, inside ``untouched``.
        images: (n, C, H, W), floats in [0, 1], or tokens (n, length).
        labels: (n,), integers in [0, classes), on the CPU.
        classes: number of classes.
        threat: what may be changed in them, and the attacks that do it.
        seed: of every attack.
        batch_size: images attacked at once.
    """

    classifier: nn.Module
    images: Tensor
    labels: Tensor
    classes: int
    threat: Threat
    seed: int
    batch_size: int
    _nearest: dict[str, Tensor] = field(default_factory=dict)
    _ended: dict[str, Tensor] = field(default_factory=dict)

    @property
    def norm(self) -> str:
        """The norm of eps."""
        return self.threat.norm

    @property
    def what(self) -> str:
        """What is attacked, in the plural."""
        return self.threat.what

    def broken_by(
        self, attack: str, places: Tensor, *, eps: float, steps: int, restarts: int = 1, onward: bool = False
    ) -> Tensor:
        """Attack the images at ``places`` (k,); return which of them break, (k,), bool, on the CPU.

        An attack that finds a distance answers for every eps: it runs once, at the first eps asked for. With ``onward``,
        PGD's first walk starts where it ended for the same image at a smaller eps, so an image that breaks at all breaks
        sooner.
        """
        walk = Walk(eps, steps, restarts, self.seed, None)
        if attack in self.threat.once:
            return self._distances(attack, places, walk) <= eps
        found = [torch.empty(0, dtype=torch.bool)]
        ended = self._ended.get(attack) if onward else None
        for here, images, labels in self.batches(places):
            start = None if ended is None else ended[here].to(images.device)
            point, broken = self.threat.run(attack, self.classifier, images, labels, walk._replace(start=start))
            found.append(broken.cpu())
            if onward:
                if attack not in self._ended:
                    self._ended[attack] = self.threat.unmoved(self.images)
                self._ended[attack][here] = point.cpu()
        return torch.cat(found)

    def _distances(self, attack: str, places: Tensor, walk: Walk) -> Tensor:
        if attack not in self._nearest:
            self._nearest[attack] = torch.full((len(self.images),), torch.nan, dtype=torch.float64)
        known = self._nearest[attack]
        for here, images, labels in self.batches(places[known[places].isnan()]):
            known[here] = self.threat.nearest(attack, self.classifier, images, labels, walk).cpu()
        return known[places]

    def batches(self, places: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yield batches of ``places`` (k,) with their images and labels, these two on the classifier's device."""
        if len(places):
            images, labels = self.images[places.to(self.images.device)], self.labels[places]
            parts = batches(self.batch_size, device_of(self.classifier), images, labels)
            for here, part in zip(torch.split(places, self.batch_size), parts, strict=True):
                yield here, *part
