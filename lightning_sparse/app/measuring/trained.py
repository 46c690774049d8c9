"""A trained model as it is measured, and the images that it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lightning_sparse.app.measuring.kind import CLASSES

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Callback
    from torch import Tensor, nn

    from lightning_sparse.app.compress_job import Coded
    from lightning_sparse.data.fixed_splits import FixedSplits
    from lightning_sparse.engine.masks import Masks


@dataclass(frozen=True)
class Trained:
    """A trained model and its data; the test split is read once.

    Attributes:
        model: the model, on ``device``.
        masks: its masks; None for a dense one.
        data: the data that trained it.
        device: where it is measured.
        callbacks: those that measured the training, by kind of measurement.
        coded: what its string of bytes takes, if it was decoded from one.
        untrained: builds the same architecture anew, by the job's seed.
        dense: builds the one that a smaller network was made of, or the same.
        task: ``"classification"``, or ``"lm"`` of a language model.
    """

    model: nn.Module
    masks: Masks | None
    data: FixedSplits
    device: torch.device
    callbacks: Mapping[str, Callback] = field(default_factory=dict)
    coded: Coded | None = None
    untrained: Callable[[], nn.Module] | None = None
    dense: Callable[[], nn.Module] | None = None
    task: str = CLASSES

    @cached_property
    def _test(self) -> tuple[Tensor, Tensor]:
        return self.data.split("test")

    def test(self, settings: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The test images that a measurement's ``images`` and ``first`` ask for."""
        images, labels = self._test
        chosen = places(self.data, settings)
        if len(chosen) < len(labels):
            images, labels = images[chosen], labels[chosen]
        return images.to(self.device), labels.to(self.device)

    def other(self, split: str, most: int | None = None) -> tuple[Tensor, Tensor]:
        """Images of another split."""
        images, labels = self.data.split(split, most)
        return images.to(self.device), labels.to(self.device)


def places(data: FixedSplits, settings: Mapping[str, Any]) -> list[int]:
    """Indices of the test images for a measurement: a stratified sample, or the first ones if ``first`` is true."""
    most = settings.get("images")
    if settings.get("first") and most:
        return list(range(min(most, len(data.sample("test")))))
    return data.sample("test", most)
