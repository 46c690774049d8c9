"""Deep Compression: three steps under one name."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_sparse.compress.steps.code import Code
from lightning_sparse.compress.steps.prune import Prune
from lightning_sparse.compress.steps.share import Share
from lightning_sparse.compress.steps.step import Step
from lightning_sparse.errors import check_count


@dataclass(frozen=True)
class DeepCompression:
    """Prune, share, train the codebooks, and code (Han et al. 2016, arXiv 1510.00149).

    The paper codes by Huffman; an arithmetic coder comes nearer to the entropy.

    Args:
        sparsity: share of the connections that die, in [0, 1). None is found by ``bits=``.
        bits: of a shared value, from 1 to 8.

    Example:
        >>> [type(step).__name__ for step in DeepCompression(0.95, bits=3).steps]
        ['Prune', 'Share', 'Code']
    """

    sparsity: float | None = None
    bits: int = 4

    def __post_init__(self) -> None:
        check_count("bits", self.bits, 1, most=8, write=3)
        Prune(self.sparsity)

    @property
    def steps(self) -> tuple[Step, ...]:
        """What it stands for."""
        return Prune(self.sparsity), Share(bits=self.bits), Code()
