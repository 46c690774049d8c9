"""Value compression: what is left, in as few bytes as a coder finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightning_sparse.compress.draft import Draft
from lightning_sparse.compress.steps.step import Step


@dataclass(frozen=True)
class Code(Step):
    """Code masks, symbols and numbers as short as can be: by constriction's range coder, lzma, or not at all.

    Each stream takes whichever is shortest. Without this step every number has a fixed width. Nothing changes in
    the network.
    """

    place: ClassVar[int] = 4

    def apply(self, draft: Draft) -> None:
        """Say that streams are coded."""
        draft.entropy = True
