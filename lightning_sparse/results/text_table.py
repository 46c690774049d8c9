"""Rows as a table in text."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], sides: str) -> str:
    """Set rows, the head among them, in columns that are aligned to the left (``<``) or right (``>``).

    Example:
        >>> print(text_table([("layer", "units"), ("conv1", "8"), ("fc", "10")], "<>"))
        layer  units
        conv1      8
        fc        10
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)
