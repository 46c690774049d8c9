"""How a number (the sparsity, the turnover) moves over training: one curve made of named segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

from lightning_sparse.engine.times import Time, check_time, to_step
from lightning_sparse.errors import SparsityError, check_choice, check_count, check_share

# The value on the way from a to b when a share p of the time has passed, p in [0, 1). Resumed runs need every bit of it.
SHAPES: dict[str, Callable[[float, float, float], float]] = {
    "jump": lambda a, b, p: b,
    "linear": lambda a, b, p: b + (a - b) * (1.0 - p),
    "cubic": lambda a, b, p: b + (a - b) * (1.0 - p) ** 3,
    "cosine": lambda a, b, p: b + (a - b) * (0.5 * (1.0 + math.cos(math.pi * p))),
    # 1 - (1 - a) * ((1 - b) / (1 - a)) ** p, written so that a curve from a to a stays at a exactly
    "exponential": lambda a, b, p: a - (1.0 - a) * math.expm1(p * math.log((1.0 - b) / (1.0 - a))),
}


MOST_STAIRS = 1000  # each is looked at when an update is due; a curve that moves at each update needs none


@dataclass(frozen=True)
class Segment:
    """One stretch of a curve: to ``value`` by ``end``, along ``shape``."""

    end: Time
    value: float
    shape: str = "jump"
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", check_share("value of a curve", self.value))
        object.__setattr__(self, "end", check_time("end of a segment", self.end, one_step_likely=True))
        _check_name(self.name)


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
        SparsityError: for a value outside [0, 1], an unknown shape, an exponential from or to 1, or ends out of order.

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
        object.__setattr__(self, "start", check_share("start of a curve", self.start))
        if isinstance(self.segments, str) or not isinstance(self.segments, Sequence):
            raise SparsityError(
                f"segments={self.segments!r} is not a tuple of segments: write Curve(0.0).then(0.5, 0.9)"
            )
        object.__setattr__(self, "segments", tuple(self.segments))
        before = Segment(0, self.start)
        for segment in self.segments:
            if not isinstance(segment, Segment):
                raise SparsityError(f"segments holds {segment!r}, which is no segment: write Curve(0.0).then(0.5, 0.9)")
            _check_shape(segment.shape, before.value, segment.value)
            if type(before.end) is type(segment.end) and segment.end < before.end:
                raise SparsityError(
                    f"a segment ends at {segment.end}, before the one ahead of it ({before.end}): write times in order"
                )
            before = segment

    def then(self, end: Time, value: float | None = None, shape: str = "jump", name: str = "") -> Curve:
        """Return the curve with one more segment.

        Args:
            end: when the segment ends.
            value: where it goes; None holds the value it starts with.
            shape: ``"jump"`` (at once, then hold), ``"linear"``, ``"cubic"`` (fast, then slow), ``"cosine"`` (slow, fast,
                slow) or ``"exponential"``: the density, 1 - value, changes by the same factor in equal times, as in
                SynFlow's rounds (Tanaka et al. 2020, arXiv 2006.05467), and neither end may have a density of 0.
            name: what the phase is called in logs and tables.
        """
        segment = Segment(end, self.final if value is None else value, shape, name)
        return replace(self, segments=(*self.segments, segment))

    def stairs(self, end: Time, value: float, count: int, shape: str = "linear", name: str = "") -> Curve:
        """Return the curve with a staircase: ``count`` jumps at equal distances in time.

        Jump i of 1..count comes at ``begin + i * (end - begin) / count``, where ``begin`` is the end of the last segment
        (or 0), and goes to where ``shape`` would be by then. So the previous value lasts one stair longer, and the last
        jump reaches ``value`` at ``end`` itself.

        Args:
            end: when the last jump comes. In steps, jumps fall on the nearest step.
            value: where the stairs lead.
            count: how many jumps, at least 1; in steps, at most one a step.
            shape: ``"linear"`` (equal jumps), ``"exponential"`` (each jump leaves the same share of the living, as in the
                lottery ticket's rounds: Frankle & Carbin 2019, arXiv 1803.03635), ``"cubic"`` or ``"cosine"``.
            name: stair i is called ``"name i"``, and the time before the first jump ``"name 0"``.

        Raises:
            SparsityError: if ``end`` is not after ``begin`` or not of its kind (both steps or both shares), if ``count`` is
                out of range, or if :meth:`then` would refuse the values.

        Example:
            Three rounds that drop 20 % of the living each, every 100 steps:

            >>> curve = Curve(0.0).stairs(300, 1 - 0.8**3, 3, "exponential", name="round")
            >>> [(step, round(curve(step), 3), curve.phase(step)) for step in (99, 100, 200, 300)]
            [(99, 0.0, 'round 0'), (100, 0.2, 'round 1'), (200, 0.36, 'round 2'), (300, 0.488, 'round 3')]
        """
        first, value = self.final, check_share("value of a curve", value)
        check_choice("shape", shape, SHAPES.keys() - {"jump"})
        _check_name(name)
        _check_shape(shape, first, value)
        begin = self.segments[-1].end if self.segments else 0
        times = [*_equal_times(begin, end, count), end]
        values = [first, *(SHAPES[shape](first, value, i / count) for i in range(1, count)), value]
        names = [f"{name} {i}" if name else "" for i in range(count + 1)]
        steps = [Segment(*stair) for stair in zip(times, values, ["jump"] * (count + 1), names, strict=True)]
        return replace(self, segments=(*self.segments, *steps))

    @property
    def final(self) -> float:
        """Value after the last segment."""
        return self.segments[-1].value if self.segments else self.start

    @property
    def values(self) -> list[float]:
        """Every value that the curve starts from or goes to."""
        return [self.start, *(segment.value for segment in self.segments)]

    @property
    def highest(self) -> float:
        """The highest value of the curve."""
        return max(self.values)

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
            SparsityError: if shares are used and ``total_steps`` is None, or if mixed times turn out not to be in order.
        """
        ends = [to_step(segment.end, total_steps) for segment in self.segments]
        if ends != sorted(ends):
            written = ", ".join(str(segment.end) for segment in self.segments)
            raise SparsityError(
                f"the times {written} of a training of {total_steps} steps become steps {ends}, which go backwards: "
                f"write them all as shares, or all as steps up to {total_steps}, in order"
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
        """First step of a resolved curve from which its value no longer changes."""
        pieces = list(self.pieces())
        while pieces and pieces[-1].last == self.final and not pieces[-1].moves:
            pieces.pop()
        return pieces[-1].end if pieces else 0

    def in_short(self, steps: int) -> Curve:
        """Return the curve for a training of ``steps`` steps, with later times brought forward to the last of them.

        What comes after the start stays after it, because there are no gradients to score by before the first step.
        """
        ends = accumulate((min(max(to_step(s.end, steps), int(s.end > 0)), steps) for s in self.segments), max)
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
        return SHAPES[piece.shape](piece.first, piece.last, progress)

    def phase(self, step: int) -> str:
        """Name of the segment that holds at ``step``; after the last one, its name."""
        piece = self.piece(step)
        return piece.name if piece else self.segments[-1].name if self.segments else ""

    def plain(self) -> dict[str, Any]:
        """The curve as dicts, lists and numbers, for a checkpoint that loads with ``weights_only=True``."""
        return {"start": self.start, "segments": [[s.end, s.value, s.shape, s.name] for s in self.segments]}


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise SparsityError(f"name={name!r} of a segment is not a string: write name='prune'")


def _check_shape(shape: str, first: float, last: float) -> None:
    check_choice("shape", shape, SHAPES)
    if shape == "exponential" and 1.0 in (first, last):
        raise SparsityError(
            f"shape='exponential' from {first:g} to {last:g}: a value of 1 is a density of 0, which no factor leads to or "
            "from: write values below 1, or shape='cubic'"
        )


def _equal_times(begin: Time, end: Time, count: int) -> list[Time]:
    """The times that divide the stretch from ``begin`` to ``end`` into ``count`` equal parts, and ``end``."""
    check_time("end of the stairs", end, one_step_likely=True)
    if begin != 0 and type(begin) is not type(end):
        raise SparsityError(
            f"stairs from {begin} to {end} mix steps and shares: write both as int steps or both as float shares"
        )
    if end <= begin:
        raise SparsityError(f"stairs to {end} begin at {begin}: write an end after the last segment's")
    if check_count("count", count, write="the number of jumps") > MOST_STAIRS:
        raise SparsityError(f"count={count} is more than {MOST_STAIRS} jumps: write {MOST_STAIRS} or less")
    if isinstance(end, float):
        return [*(begin + i * (end - begin) / count for i in range(1, count)), end]
    if count > end - begin:
        raise SparsityError(
            f"count={count} jumps do not fit between step {begin} and step {end}: write a count of at most "
            f"{end - int(begin)}"
        )
    return [int(begin) + round(i * (end - int(begin)) / count) for i in range(1, count + 1)]


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
    check_share("final", final)
    return Curve(initial).then(begin, name="before").then(end, final, "cubic", name="prune").then(end, name="rest")
