"""How much of a training is over."""

from __future__ import annotations

from lightning.pytorch import Trainer


def share_done(trainer: Trainer) -> float:
    """The share of the training that is over when this epoch ends; NaN if its end is not known."""
    shares = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        shares.append((trainer.current_epoch + 1) / trainer.max_epochs)
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    return max(shares, default=float("nan"))
