"""Callbacks of which a Trainer takes one: a second one is refused in our words."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_sparse.errors import SparsityError


class StateKey(str):
    """The key of a callback's state, equal to the same plain text, as checkpoints hold it, but to no other ``StateKey``.

    A Trainer compares the keys of its callbacks as soon as it is made, and of two equal ones says only that "this callback
    does not support being saved alongside other instances". So they differ there, and ``setup`` says what to write.

    Example:
        >>> StateKey("monitor") == "monitor", StateKey("monitor") == StateKey("monitor"), {"monitor": 3}[StateKey("monitor")]
        (True, False, 3)
    """

    def __eq__(self, other: object) -> bool:
        return self is other if isinstance(other, StateKey) else str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


class OneOfAKind(Callback):
    """A callback that refuses another with the same state key; ``instead`` says what to write."""

    instead = "one does for the whole training: leave one out"

    @property
    def kind(self) -> str:
        """What two callbacks must not have in common; the key of the state in a checkpoint."""
        return type(self).__qualname__

    @property
    def state_key(self) -> str:
        """The key of the state in a checkpoint."""
        return StateKey(self.kind)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a second one, and the same one given twice."""
        same = [other for other in trainer.callbacks if str(other.state_key) == self.kind]  # type: ignore[attr-defined]
        if len(same) == 1:
            return
        names = " and ".join(type(other).__name__ for other in same)
        if all(other is self for other in same):
            raise SparsityError(f"the Trainer's callbacks hold the same {type(self).__name__} twice: leave it out once")
        raise SparsityError(f"the Trainer's callbacks hold {names}: {self.instead}")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save plain keys."""
        if "callbacks" in checkpoint:
            checkpoint["callbacks"] = {str(key): state for key, state in checkpoint["callbacks"].items()}
