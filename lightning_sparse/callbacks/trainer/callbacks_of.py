"""The callbacks of one kind that a Trainer has."""

from __future__ import annotations

from typing import TypeVar

from lightning.pytorch import Trainer

Kind = TypeVar("Kind")


def callbacks_of(trainer: Trainer, kind: type[Kind]) -> list[Kind]:
    """Return them in their order."""
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]
