"""How a number (the sparsity, the turnover) moves over training: one curve made of named segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

from lightning_sparse.errors import SparsityError, check_choice, check_share
from lightning_sparse.times import Time, check_time, to_step

# How much of the way is still to go when a share p of a segment's time has passed.
SHAPES: dict[str, Callable[[float], float]] = {
    "jump": lambda p: 0.0,
    "linear": lambda p: 1.0 - p,
    "cubic": lambda p: (1.0 - p) ** 3,
    "cosine": lambda p: 0.5 * (1.0 + math.cos(math.pi * p)),
}


@dataclass(frozen=True)
class Segment:
    """One stretch of a curve: to ``value`` by ``end``, along ``shape``."""

    end: Time
    value: float
    shape: str = "jump"
    name: str = ""


class Piece(NamedTuple):
    """A segment with both ends known, in steps."""

    begin: int
    end: int
    first: float
    last: float
    shape: str
    name: str

    @property
    def moves(self) -> bool:
        """Whether the value changes after ``begin``."""
        return self.shape != "jump" and self.first != self.last


@dataclass(frozen=True)
class Curve:
    """A share in [0, 1] as a function of the optimizer step.

    The curve starts at ``start`` and follows its segments; after the last one it keeps its last value. A segment holds
    from its first step up to, but not including, its end, where the next one takes over.

    Args:
        start: value at step 0, in [0, 1].
        segments: the stretches, in the order of time. :meth:`then` is the easy way to add them.

    Raises:
        SparsityError: for a value outside [0, 1], an unknown shape, or ends that go back in time.

    Example:
        Half the training dense, then a linear fall to 10 % density, then rest:

        >>> curve = Curve(0.0).then(0.5).then(0.75, 0.9, "linear", name="prune").resolve(1000)
        >>> [round(curve(step), 2) for step in (0, 499, 500, 625, 750, 1000)]
        [0.0, 0.0, 0.0, 0.45, 0.9, 0.9]
        >>> curve.phase(600)
        'prune'
    """

    start: float
    segments: tuple[Segment, ...] = ()

    def __post_init__(self) -> None:
        check_share("start of a curve", self.start)
        before: Time = 0
        for segment in self.segments:
            check_share("value of a curve", segment.value)
            check_choice("shape", segment.shape, SHAPES)
            check_time("end of a segment", segment.end, one_step_likely=True)
            if type(before) is type(segment.end) and segment.end < before:
                raise SparsityError(
                    f"a segment ends at {segment.end}, before the one ahead of it ({before}): write times in order"
                )
            before = segment.end

    def then(self, end: Time, value: float | None = None, shape: str = "jump", name: str = "") -> Curve:
        """Return the curve with one more segment.

        Args:
            end: when the segment ends.
            value: where it goes; None holds the value it starts with.
            shape: ``"jump"`` (at once, then hold), ``"linear"``, ``"cubic"`` (fast, then slow) or ``"cosine"``.
            name: what the phase is called in logs and tables.
        """
        segment = Segment(end, self.final if value is None else value, shape, name)
        return replace(self, segments=(*self.segments, segment))

    @property
    def final(self) -> float:
        """Value after the last segment."""
        return self.segments[-1].value if self.segments else self.start

    @property
    def needs_total(self) -> bool:
        """Whether a time in the curve is a share of the training."""
        return any(isinstance(segment.end, float) and segment.end > 0.0 for segment in self.segments)

    @property
    def moves(self) -> bool:
        """Whether the curve does more than hold and jump."""
        return any(segment.shape != "jump" for segment in self.segments)

    def resolve(self, total_steps: int | None) -> Curve:
        """Return the same curve with every time in optimizer steps.

        Raises:
            SparsityError: if shares are used and ``total_steps`` is None, or if mixed times turn out to go backwards.
        """
        ends = [to_step(segment.end, total_steps) for segment in self.segments]
        if ends != sorted(ends):
            written = ", ".join(str(segment.end) for segment in self.segments)
            raise SparsityError(
                f"the times {written} of a training of {total_steps} steps become steps {ends}, which go backwards: "
                "write them all as steps or all as shares, in order"
            )
        return Curve(self.start, tuple(replace(s, end=end) for s, end in zip(self.segments, ends, strict=True)))

    def pieces(self) -> Iterator[Piece]:
        """Yield the segments of a resolved curve that last at least one step."""
        begin, first = 0, self.start
        for segment in self.segments:
            end = int(segment.end)
            if end > begin:
                yield Piece(begin, end, first, segment.value, segment.shape, segment.name)
            begin, first = max(begin, end), segment.value

    @property
    def end(self) -> int:
        """Last step of the last segment of a resolved curve."""
        return int(self.segments[-1].end) if self.segments else 0

    @property
    def settled(self) -> int:
        """First step of a resolved curve from which on its value stays what it is in the end."""
        pieces = list(self.pieces())
        while pieces and pieces[-1].last == self.final and not pieces[-1].moves:
            pieces.pop()
        return pieces[-1].end if pieces else 0

    def in_short(self, steps: int) -> Curve:
        """Return the curve for a training of ``steps`` steps, with every time beyond them brought forward to the last."""
        ends = accumulate((min(to_step(segment.end, steps), steps) for segment in self.segments), max)
        return Curve(self.start, tuple(replace(s, end=end) for s, end in zip(self.segments, ends, strict=True)))

    def piece(self, step: int) -> Piece | None:
        """Return the piece that holds at ``step``, or None after the last."""
        return next((piece for piece in self.pieces() if piece.begin <= step < piece.end), None)

    def __call__(self, step: int) -> float:
        """Value of a resolved curve at an optimizer step."""
        piece = self.piece(step)
        if piece is None:
            return self.final
        if step == piece.begin and piece.shape != "jump":
            return piece.first  # exact, where last + (first - last) may be off by a rounding
        progress = (step - piece.begin) / (piece.end - piece.begin)
        return piece.last + (piece.first - piece.last) * SHAPES[piece.shape](progress)

    def phase(self, step: int) -> str:
        """Name of the segment that holds at ``step``; after the last one, its name."""
        piece = self.piece(step)
        last = self.segments[-1].name if self.segments else ""
        return piece.name if piece else last

    def plain(self) -> dict[str, Any]:
        """The curve as dicts, lists and numbers, for a checkpoint that loads with ``weights_only=True``."""
        return {"start": self.start, "segments": [[s.end, s.value, s.shape, s.name] for s in self.segments]}


def from_plain(plain: dict[str, Any]) -> Curve:
    """Rebuild a curve from :meth:`Curve.plain`."""
    return Curve(plain["start"], tuple(Segment(*segment) for segment in plain["segments"]))


def cubic(final: float, *, initial: float = 0.0, begin: Time = 0.0, end: Time = 0.75) -> Curve:
    """Zhu & Gupta's curve: fast pruning first, slow towards the end.

    ``s(t) = final + (initial - final) * (1 - (t - begin) / (end - begin)) ** 3`` between ``begin`` and ``end``.
    Paper: Zhu & Gupta 2017, "To prune, or not to prune" (arXiv 1710.01878), equation 1.

    Args:
        final: sparsity from ``end`` on, in [0, 1).
        initial: sparsity until ``begin``, in [0, 1).
        begin: when pruning begins.
        end: when the final sparsity is reached.

    Example:
        >>> curve = cubic(0.9, begin=100, end=200).resolve(None)
        >>> [round(curve(step), 4) for step in (0, 100, 150, 200)]
        [0.0, 0.0, 0.7875, 0.9]
    """
    return Curve(initial).then(begin, name="before").then(end, final, "cubic", name="prune").then(end, name="rest")
