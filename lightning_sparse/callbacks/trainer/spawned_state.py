"""A callback's state, sent by a spawned process to the process that spawned it."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch


class SpawnedState:
    """A temporary file whose name both processes know: Lightning brings weights and metrics back from a spawned fit, but
    nothing of its callbacks.

    It travels inside the pickled callback; only the process that made it reads it, and removes it in the end.
    """  # noqa: D205

    def __init__(self) -> None:
        self._home, self._original = os.getpid(), True
        self._path = Path(tempfile.gettempdir()) / f"lightning_sparse-{uuid4().hex}.pt"
        weakref.finalize(self, self._path.unlink, missing_ok=True)

    def __deepcopy__(self, memo: Any) -> SpawnedState:
        """A copied callback has a file of its own."""
        return SpawnedState()

    def __getstate__(self) -> dict[str, Any]:
        """A pickled one sends, and does not receive in the place of the original."""
        return {**vars(self), "_original": False}

    def send(self, state: dict[str, Any]) -> None:
        """Leave a state, if this is a spawned process."""
        if os.getpid() != self._home:
            part = self._path.with_suffix(".part")
            torch.save(state, part)
            part.replace(self._path)

    def receive(self) -> dict[str, Any] | None:
        """Return the state that was sent, once, or None."""
        if not self._original or os.getpid() != self._home or not self._path.exists():
            return None
        state: dict[str, Any] = torch.load(self._path, weights_only=True)
        self._path.unlink()
        return state
