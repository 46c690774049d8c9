"""A classifier with the images it is attacked on: any attack on any of them, batch by batch, and what that cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import device_of
from lightning_sparse.measure.classifier import batches as split
from lightning_sparse.measure.robustness.attacks import ATTACKS
from lightning_sparse.measure.robustness.from_torchattacks import nearest

CONTINUED = ("pgd", "pgd-margin")


@dataclass(frozen=True)
class Victim:
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

        FAB finds a distance, which answers for every eps: it runs once, at the first eps asked for. ``onward``: PGD's first
        walk goes on from where it ended for the same images at a smaller eps, and an image that breaks at all breaks sooner.
        """
        found = [torch.empty(0, dtype=torch.bool)]
        if attack == "fab-t":
            return self._distances(places, steps, eps) <= eps
        ended, done = self._ended.get(attack) if onward else None, 0
        for part, targets in self.batches(places):
            here = places[done : done + len(part)]
            done += len(part)
            start = None if ended is None else ended[here].to(part.device)
            settings: dict[str, Any] = {"eps": eps, "norm": self.norm, "steps": steps, "restarts": restarts}
            point, broken = ATTACKS[attack](self.classifier, part, targets, start=start, seed=self.seed, **settings)
            found.append(broken.cpu())
            if onward:
                self._ended.setdefault(attack, self.images.detach().float().cpu().clone())[here] = point.cpu()
        return torch.cat(found)

    def _distances(self, places: Tensor, steps: int, enough: float) -> Tensor:
        if steps not in self._nearest:
            self._nearest[steps] = torch.full((len(self.images),), torch.nan, dtype=torch.float64)
        known = self._nearest[steps]
        new = places[known[places].isnan()]
        start = 0
        for part, targets in self.batches(new):
            _, away = nearest(self.classifier, part, targets, norm=self.norm, steps=steps, enough=enough)
            known[new[start : start + len(part)]] = away.cpu()
            start += len(part)
        return known[places]

    def batches(self, places: Tensor) -> list[tuple[Tensor, ...]]:
        """Give images and labels at ``places`` (k,), batch by batch, on the classifier's device."""
        if len(places) == 0:
            return []
        images, labels = self.images[places.to(self.images.device)], self.labels[places]
        return list(split(self.batch_size, device_of(self.classifier), images, labels))
