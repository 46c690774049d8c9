"""How a spawned process hands a callback's state to the process that spawned it."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch


class Mailbox:
    """A temporary file whose name both processes know: Lightning brings weights and metrics back from a spawned fit, but
    nothing of its callbacks.

    It travels inside the pickled callback; only the process that made it reads it, and removes it in the end.
    """  # noqa: D205

    def __init__(self) -> None:
        self._home, self._original = os.getpid(), True
        self._path = Path(tempfile.gettempdir()) / f"lightning_sparse-{uuid4().hex}.pt"
        weakref.finalize(self, self._path.unlink, missing_ok=True)

    def __deepcopy__(self, memo: Any) -> Mailbox:
        """A copied callback gets letters of its own."""
        return Mailbox()

    def __getstate__(self) -> dict[str, Any]:
        """A pickled one writes letters, and does not open those of the original."""
        return {**vars(self), "_original": False}

    def post(self, state: dict[str, Any]) -> None:
        """Leave a state, if this is not the process at home."""
        if os.getpid() != self._home:
            part = self._path.with_suffix(".part")
            torch.save(state, part)
            part.replace(self._path)

    def take(self) -> dict[str, Any] | None:
        """Return the state that was left, once, or None."""
        if not self._original or os.getpid() != self._home or not self._path.exists():
            return None
        state: dict[str, Any] = torch.load(self._path, weights_only=True)
        self._path.unlink()
        return state
