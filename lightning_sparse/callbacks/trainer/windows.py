"""How much of a training is over, and which of its parts an epoch is in."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lightning_sparse.errors import SparsityError, check_share


def share_done(trainer: Trainer) -> float:
    """The share of the training that is over when this epoch ends; NaN if its end is not known."""
    shares = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        shares.append((trainer.current_epoch + 1) / trainer.max_epochs)
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    return max(shares, default=float("nan"))


def check_window(window: object) -> float:
    """Return a share of the training that is to be early, and late, or raise a SparsityError."""
    if not 0.0 < check_share("window", window) <= 0.5:
        raise SparsityError(f"window={window} is not in (0, 0.5]: write 0.3 for the first and the last 30 percent")
    return float(window)  # type: ignore[arg-type]


def windows_of(trainer: Trainer, window: float) -> list[str]:
    """Whether the epoch that ends now is ``"early"``, ``"late"``, both or neither; neither in a training without an end."""
    done = share_done(trainer)
    inside = {"early": done <= window + 1e-9, "late": done > 1 - window + 1e-9}
    return [name for name, here in inside.items() if here]
