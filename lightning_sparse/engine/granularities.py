"""What the names of granularities stand for."""

from __future__ import annotations

import re

from lightning_sparse.engine.granularity import WEIGHTS, Blocks, Granularity, Groups
from lightning_sparse.engine.tied_channels import TiedChannels
from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need


def parse_granularity(choice: str | Granularity) -> Granularity:
    """Return the granularity that a string stands for, and refuse anything else.

    Args:
        choice: ``"weights"``; ``"N:M"`` such as ``"2:4"``; ``"RxC"``, blocks of R rows and C columns, such as ``"1x4"``;
            ``"channels"``; ``"tied_channels"``; or an object of :mod:`~lightning_sparse.engine.granularity`.

    Example:
        >>> parse_granularity("2:4"), parse_granularity("4x4"), parse_granularity("channels")
        (Groups(n=2, m=4), Blocks(rows=4, columns=4), Blocks(rows=1, columns=None))
        >>> parse_granularity("2:2")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: granularity='2:2' is not N:M: write how many live of how many, 1 <= N < M, such as '2:4'
    """  # noqa: E501
    if isinstance(choice, Granularity):
        return choice
    text = str(choice)
    if text == "weights":
        return WEIGHTS
    if text == "channels":
        return Blocks()
    if text == "tied_channels":
        need("torch_pruning")
        return TiedChannels()
    for pattern, kind in ((r"(\d+):(\d+)", Groups), (r"(\d+)x(\d+)", Blocks)):
        found = re.fullmatch(pattern, text)
        if found:
            return kind(int(found[1]), int(found[2]))
    quote = ""
    if isinstance(choice, int) and choice > 60:  # YAML 1.1 has sexagesimal numbers
        quote = f" (YAML reads {choice // 60}:{choice % 60} without quotes as {choice}: write it with quotes)"
    raise SparsityError(
        f"granularity={choice!r} does not exist: write 'weights', 'N:M' such as '2:4', 'RxC' such as '1x4' or '4x4', "
        f"'channels' or 'tied_channels'{quote}"
    )
