"""A classifier with the images it is attacked on: any attack on any of them, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import device_of
from lightning_sparse.measure.classifier import batches
from lightning_sparse.measure.robustness.attacks import ATTACKS
from lightning_sparse.measure.robustness.from_torchattacks import nearest

CONTINUED = ("pgd", "pgd-margin")


@dataclass(frozen=True)
class AttackedModel:
    """What is attacked.

    Attributes:
        classifier: pixels in [0, 1] to logits, inside ``untouched``.
        images: (n, C, H, W), floats in [0, 1].
        labels: (n,), integers in [0, classes), on the CPU.
        classes: number of classes.
        norm: ``"Linf"`` or ``"L2"``.
        seed: of every attack.
        batch_size: images attacked at once.
    """

    classifier: nn.Module
    images: Tensor
    labels: Tensor
    classes: int
    norm: str
    seed: int
    batch_size: int
    _nearest: dict[int, Tensor] = field(default_factory=dict)
    _ended: dict[str, Tensor] = field(default_factory=dict)

    def broken_by(
        self, attack: str, places: Tensor, *, eps: float, steps: int, restarts: int = 1, onward: bool = False
    ) -> Tensor:
        """Attack the images at ``places`` (k,); return which of them break, (k,), bool, on the CPU.

        FAB finds a distance, which answers for every eps: it runs once, at the first eps asked for. With ``onward``, PGD's
        first walk starts where it ended for the same image at a smaller eps, so an image that breaks at all breaks sooner.
        """
        if attack == "fab-t":
            return self._distances(places, steps, eps) <= eps
        found = [torch.empty(0, dtype=torch.bool)]
        ended = self._ended.get(attack) if onward else None
        walks: dict[str, Any] = {"eps": eps, "norm": self.norm, "steps": steps, "restarts": restarts, "seed": self.seed}
        for here, images, labels in self.batches(places):
            start = None if ended is None else ended[here].to(images.device)
            point, broken = ATTACKS[attack](self.classifier, images, labels, start=start, **walks)
            found.append(broken.cpu())
            if onward:
                self._ended.setdefault(attack, self.images.detach().float().cpu().clone())[here] = point.cpu()
        return torch.cat(found)

    def _distances(self, places: Tensor, steps: int, enough: float) -> Tensor:
        if steps not in self._nearest:
            self._nearest[steps] = torch.full((len(self.images),), torch.nan, dtype=torch.float64)
        known = self._nearest[steps]
        for here, images, labels in self.batches(places[known[places].isnan()]):
            _, away = nearest(self.classifier, images, labels, norm=self.norm, steps=steps, enough=enough)
            known[here] = away.cpu()
        return known[places]

    def batches(self, places: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yield batches of ``places`` (k,) with their images and labels, these two on the classifier's device."""
        if len(places):
            images, labels = self.images[places.to(self.images.device)], self.labels[places]
            parts = batches(self.batch_size, device_of(self.classifier), images, labels)
            for here, part in zip(torch.split(places, self.batch_size), parts, strict=True):
                yield here, *part
