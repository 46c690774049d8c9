"""Send a callback's state from a spawned process to the process that spawned it."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch


class SpawnedState:
    """A temporary file for a callback's state: of a spawned fit, Lightning brings back weights and metrics only.

    The file's name travels in the pickled callback; the process that made it reads the file, and removes it in the end.
    """

    def __init__(self) -> None:
        self._home, self._original = os.getpid(), True
        self._path = Path(tempfile.gettempdir()) / f"lightning_sparse-{uuid4().hex}.pt"
        weakref.finalize(self, self._path.unlink, missing_ok=True)

    def __deepcopy__(self, memo: Any) -> SpawnedState:
        """A copied callback has a file of its own."""
        return SpawnedState()

    def __getstate__(self) -> dict[str, Any]:
        """A pickled one sends only: the original receives."""
        return {**vars(self), "_original": False}

    def send(self, state: dict[str, Any]) -> None:
        """Write the state, if this is a spawned process."""
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
