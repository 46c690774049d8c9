"""Callbacks with which a training can be resumed under the same arguments only."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.resumed_from import restoring
from lightning_sparse.errors import SparsityError


class SameArguments(OneOfAKind):
    """Keeps its arguments, and what :meth:`memory` returns, in its state, and refuses to go on from others."""

    def __init__(self) -> None:
        super().__init__()
        self._restored: dict[str, Any] = {}

    def arguments(self) -> dict[str, Any]:
        """What a resumed training has to have too."""
        raise NotImplementedError

    def memory(self) -> dict[str, Any]:
        """What else it needs."""
        return {}

    def recall(self, memory: dict[str, Any]) -> None:
        """Go on from there; called when training starts."""

    def paused(self) -> AbstractContextManager[None]:
        """A context in which it does nothing to the network."""
        return nullcontext()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the state of another training, unless this one goes on with it."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.ckpt_path is None:
            self._restored = self.state_dict() if trainer.global_step > 0 else {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from the restored state, or refuse it."""
        with restoring(type(self).__name__):
            for name, now in self.arguments().items():
                before = self._restored["arguments"][name] if self._restored else now
                if before != now:
                    raise SparsityError(
                        f"{name}={now!r}, and the checkpoint was trained with {name}={before!r}: resume with the same, or "
                        "start a new training from its weights (without ckpt_path)"
                    )
            if self._restored:
                self.recall(self._restored["memory"])
        self._restored = {}

    def state_dict(self) -> dict[str, Any]:
        """The arguments and the memory, or what was restored and is not in use yet."""
        return self._restored or {"arguments": self.arguments(), "memory": self.memory()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts."""
        with restoring(type(self).__name__):
            self._restored = dict(state_dict)
