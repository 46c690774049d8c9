"""A method of sparse training: all of its choices in one frozen dataclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from torch import Tensor

from lightning_sparse.anatomy.parameters import outputs_first
from lightning_sparse.anatomy.patterns import check_patterns
from lightning_sparse.engine.allocation import ALLOCATIONS, TAKES, Allocation, check_allocation
from lightning_sparse.engine.choices import find, name_of, without_our_paths
from lightning_sparse.engine.granularities import parse_granularity
from lightning_sparse.engine.granularity import Granularity, Groups
from lightning_sparse.engine.rewinding import Rewind
from lightning_sparse.engine.schedules import Curve, from_plain
from lightning_sparse.engine.scores.names import DROP, GROW
from lightning_sparse.engine.scores.of_inputs import obs, wanda
from lightning_sparse.engine.scores.of_layer import Score, needs_gradient_of
from lightning_sparse.engine.scores.of_network import is_of_network, synflow
from lightning_sparse.engine.tied_channels import TiedChannels
from lightning_sparse.engine.times import Time, check_time, check_total, to_step
from lightning_sparse.errors import SparsityError, check_choice, check_count, check_flag, check_seed

NO_TURNOVER = Curve(0.0)


@dataclass(frozen=True)
class Recipe:
    """The choices that make a method; the engine does the rest.

    Every update does the same: score; share the density between the layers; drop and grow to the counts; replace the share
    ``turnover`` of what lives; start newborns at zero, or rewind everything.

    Args:
        sparsity: share of dead connections over training, values in [0, 1).
        turnover: share of the living connections replaced at an update, values in [0, 1].
        drop: which connections die first: a name in :data:`lightning_sparse.engine.scores.names.DROP` or a score of your own.
        birth: the same before the first step, if the network is born sparse; None takes ``drop``.
        grow: which missing ones are born first: ``"gradient"``, ``"momentum"``, ``"random"`` or a score of your own.
        allocation: how the living are shared between layers: ``"global"``, ``"uniform"``, ``"erk"`` or your own function.
        every: time between two updates while a curve moves or connections are replaced; at least one step.
        granularity: what lives or dies as one: ``"weights"``, groups such as ``"2:4"``, blocks such as ``"1x4"``,
            ``"channels"``, or ``"tied_channels"``, which can be removed from the network.
        redistribute: whether what turnover frees moves to the layers whose living connections have the higher grow scores
            (SNFS), instead of staying in its layer.
        rounds: how many rounds of scoring and dropping, each by the same factor, an update that prunes takes (SynFlow: 100).
        score_batches: how many batches of training data a score of the whole network reads, or ``reconstruct``.
        rewind: where the weights go after connections have died; None leaves them as they are.
        reconstruct: ``"obs"`` lets the weights that live on make up for those that die (SparseGPT), on ``score_batches``
            batches; None leaves them as they are.
        include: patterns of parameter names; None takes the weights of Linear, Conv and Conv1D layers.
        exclude: patterns of parameter names to leave out.
        seed: of the run's own generator, which random scores draw from.
        total_steps: optimizer steps of the training, where the Trainer cannot know them.
        compact_masks: hold the masks at one byte a weight on a GPU too, where each is otherwise as wide as its weight.

    Attributes:
        scores: what ``drop``, ``birth`` and ``grow`` stand for: functions, or classes of which a run makes an object.
        shares: what ``allocation`` stands for.
        units: what ``granularity`` stands for.
        names: what ``drop``, ``birth``, ``grow`` and ``allocation`` are called in a checkpoint.

    Raises:
        SparsityError: if a choice does not exist or a time is out of range.

    Example:
        SET, Mocanu et al. 2018, in one line:

        >>> from lightning_sparse.engine.schedules import Curve
        >>> SET = Recipe(Curve(0.9), turnover=Curve(0.3), grow="random", allocation="erk", every=100)
        >>> plan = SET.resolve(None)
        >>> [step for step in range(301) if plan.due(step)]
        [0, 100, 200, 300]
    """

    sparsity: Curve
    turnover: Curve = NO_TURNOVER
    drop: str | Score = "magnitude"
    birth: str | Score | None = None
    grow: str | Score = "gradient"
    allocation: str | Allocation = "global"
    every: Time = 0.01
    granularity: str | Granularity = "weights"
    redistribute: bool = False
    rounds: int = 1
    score_batches: int = 1
    rewind: Rewind | None = None
    reconstruct: str | None = None
    include: Sequence[str] | None = None
    exclude: Sequence[str] | None = None
    seed: int = 0
    total_steps: int | None = None
    compact_masks: bool = False
    scores: Mapping[str, Any] = field(init=False, repr=False, compare=False)
    shares: Allocation = field(init=False, repr=False, compare=False)
    units: Granularity = field(init=False, repr=False, compare=False)
    names: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("sparsity", "turnover"):
            _check_curve(name, getattr(self, name))
        choices = {"drop": self.drop, "birth": self.birth, "grow": self.grow, "allocation": self.allocation}
        named = {"drop": DROP, "birth": DROP, "grow": GROW, "allocation": ALLOCATIONS}
        chosen = {argument: choice for argument, choice in choices.items() if argument != "birth" or choice is not None}
        takes = dict.fromkeys(named, ("layer",)) | {"allocation": TAKES}
        found = {
            argument: find(argument, choice, named[argument], takes[argument]) for argument, choice in chosen.items()
        }
        object.__setattr__(self, "shares", found.pop("allocation"))
        object.__setattr__(self, "scores", {"birth": found["drop"]} | found)
        object.__setattr__(self, "units", parse_granularity(self.granularity))
        object.__setattr__(self, "names", {argument: name_of(argument, choice) for argument, choice in chosen.items()})
        if self.born_sparse and needs_gradient_of(self.scores["birth"]):
            raise SparsityError(
                f"drop={self.names.get('birth', self.names['drop'])!r} reads gradients, and there are none before the first "
                f"step, when {self.sparsity.start:g} of the connections are to be dead: choose 'magnitude' or 'random', or "
                "start at sparsity 0"
            )
        if isinstance(self.units, TiedChannels) and self.grows:
            raise SparsityError(
                "granularity='tied_channels', and connections that are born in training: a channel that is 0 everywhere gets "
                "no gradient behind a ReLU; take a method that only prunes, such as GradualPruning, or granularity='channels'"
            )
        self._check_inputs()
        if self.rewind is not None and not isinstance(self.rewind, Rewind):
            raise SparsityError(f"rewind={self.rewind!r} is not a Rewind: write rewind=Rewind(to=0)")
        for name, most in (("rounds", 10_000), ("score_batches", 1_000_000)):
            if check_count(name, getattr(self, name)) > most:
                raise SparsityError(f"{name}={getattr(self, name)} is more than {most}: write {most} or less")
        for name in ("redistribute", "compact_masks"):
            check_flag(name, getattr(self, name))
        for name in ("include", "exclude"):
            object.__setattr__(self, name, check_patterns(name, getattr(self, name)))
        object.__setattr__(self, "seed", check_seed(self.seed))
        check_total("total_steps", self.total_steps)
        object.__setattr__(self, "every", check_time("every", self.every, one_step_likely=True))
        if self.every == 0 and isinstance(self.every, int):
            raise SparsityError(
                "every=0 steps is not an interval: write 1 to update at every step, or 0.01 for a share"
            )

    def _check_inputs(self) -> None:
        """Refuse what does not go with scores of inputs, or with weights that make up for others."""
        scores = {name: self.scores[name] for name in ("drop", "birth") if name in self.names}
        if self.reconstruct is not None and check_choice("reconstruct", self.reconstruct, ("obs",)):
            reasons = {
                "connections that are born in training": self.grows,
                f"rounds={self.rounds}": self.rounds != 1,
                f"rewind={self.rewind!r}": self.rewind is not None,
            }
            for reason in (reason for reason, holds in reasons.items() if holds):
                raise SparsityError(
                    f"reconstruct='obs', and {reason}: what the weights have made up for would be lost; leave one of the two "
                    "out, as OneShot does"
                )
        for argument, score in scores.items():
            if score is obs and self.reconstruct is None:
                raise SparsityError(
                    f"{argument}='obs' chooses while the other weights make up for what dies: write reconstruct='obs' too"
                )
            if score in (obs, wanda) and not (type(self.units) is Granularity or isinstance(self.units, Groups)):
                raise SparsityError(
                    f"{argument}={self.names[argument]!r} compares single weights within an output, and granularity="
                    f"'{self.units}' ranks larger units: write granularity='weights' or N:M such as '2:4', or "
                    f"{argument}='magnitude'"
                )

    @property
    def reads_inputs(self) -> bool:
        """Whether something needs to see what each weight is multiplied with."""
        return self.reconstruct is not None or any(score is wanda for score in self.scores.values())

    @property
    def born_sparse(self) -> bool:
        """Whether connections die before the first step."""
        return self.sparsity.start > 0.0

    @property
    def grows(self) -> bool:
        """Whether connections may be born after the first step."""
        values = self.sparsity.values
        return self.turnover.highest > 0.0 or any(later < earlier for earlier, later in pairwise(values))

    def check(self, parameters: Mapping[str, Tensor]) -> None:
        """Raise a SparsityError if the recipe cannot be followed on these parameters."""
        sparsities = self.sparsity.values
        flat = [name for name, weight in parameters.items() if weight.dim() < 2] if self.reads_inputs else []
        if flat:
            raise SparsityError(
                f"{self.reads_batches[0]} needs weights that are multiplied with an input, and {flat[0]!r} has shape "
                f"{tuple(parameters[flat[0]].shape)}: leave it out with exclude={flat}"
            )
        self.units.check(parameters, sparsities, self.turnover.values, self.allocation, self.redistribute)
        check_allocation(self.shares, outputs_first(parameters), sparsities, self.units, self.redistribute)

    @property
    def needs_total(self) -> bool:
        """Whether a time is a share of the training."""
        if self.sparsity.needs_total or self.turnover.needs_total:
            return True
        if self.rewind and isinstance(self.rewind.to, float) and self.rewind.to > 0.0:
            return True
        return isinstance(self.every, float) and self._repeats

    @property
    def _repeats(self) -> bool:
        return self.sparsity.moves or self.turnover.highest > 0.0

    def resolve(self, total_steps: int | None) -> Recipe:
        """Return the same recipe with every time in optimizer steps; its own ``total_steps`` wins over the argument."""
        total = self.total_steps or total_steps
        every = max(1, to_step(self.every, total)) if self._repeats else 1
        rewind = self.rewind and replace(self.rewind, to=to_step(self.rewind.to, total))
        sparsity, turnover = self.sparsity.resolve(total), self.turnover.resolve(total)
        return replace(self, sparsity=sparsity, turnover=turnover, every=every, rewind=rewind)

    @property
    def reads_batches(self) -> list[str]:
        """Which choices have to be shown batches: scores of the whole network, and channels that are still to be tied."""
        scores = [
            f"{n}={name!r}" for n, name in self.names.items() if n in self.scores and is_of_network(self.scores[n])
        ]
        inputs = ["reconstruct='obs'"] * (self.reconstruct is not None)
        return inputs + scores + ["granularity='tied_channels'"] * self._to_be_tied

    @property
    def _to_be_tied(self) -> bool:
        return isinstance(self.units, TiedChannels) and self.units.ties is None

    @property
    def reads_a_loss(self) -> bool:
        """Whether one of them needs the loss too, as all but SynFlow do."""
        scores = self.scores.values()
        return (
            self._to_be_tied
            or self.reads_inputs
            or any(is_of_network(score) and score is not synflow for score in scores)
        )

    def due(self, step: int) -> bool:
        """Whether a resolved recipe updates the masks after optimizer step ``step`` (0 is before the first)."""
        return self._sparsity_due(step) or self.turnover_at(step) > 0.0

    def turnover_at(self, step: int) -> float:
        """Share of the living to be replaced after ``step``: zero where no replacement is due."""
        piece = self.turnover.piece(step)
        begin = piece.begin if piece else self.turnover.end
        on_time = step > 0 and (step - begin) % int(self.every) == 0
        return self.turnover(step) if on_time else 0.0

    def _sparsity_due(self, step: int) -> bool:
        if step == 0:
            return self.sparsity(0) > 0.0
        # A comparison with the step before would not do: near its end, a slow curve moves by less than a float can show.
        if any(piece.end == step and piece.moves for piece in self.sparsity.pieces()):
            return True
        if any(segment.end == step for segment in self.sparsity.segments):
            return self.sparsity(step) != self.sparsity(step - 1)
        piece = self.sparsity.piece(step)
        return piece is not None and piece.moves and (step - piece.begin) % int(self.every) == 0

    def next_due(self, step: int) -> int | None:
        """The first step after ``step`` at which a resolved recipe updates the masks, or None if there is none."""
        mark = self._next_mark(step)
        while mark is not None and not self.due(mark):
            mark = self._next_mark(mark)
        return mark

    def _next_mark(self, step: int) -> int | None:
        """The first step after ``step`` at which an update may be due."""
        every = int(self.every)
        coming = [piece for curve in (self.sparsity, self.turnover) for piece in curve.pieces() if piece.end > step]
        marks = [piece.end for piece in coming]
        busy = [p.begin for p in coming if p.moves or (p in self.turnover.pieces() and p.last > 0.0)]
        if self.turnover.final > 0.0:  # turnover never ends
            busy.append(self.turnover.end)
        for begin in busy:
            first = max(step + 1, begin)
            marks.append(first + (begin - first) % every)
        return min(marks, default=None)

    def in_short(self, steps: int) -> Recipe:
        """Return the recipe for a trial run of ``steps`` steps: every later time becomes the last of them."""
        every = max(1, min(to_step(self.every, steps), steps))
        rewind = self.rewind and replace(self.rewind, to=min(to_step(self.rewind.to, steps), steps))
        sparsity, turnover = self.sparsity.in_short(steps), self.turnover.in_short(steps)
        return replace(self, sparsity=sparsity, turnover=turnover, every=every, rewind=rewind)

    def plain(self) -> dict[str, Any]:
        """The recipe as dicts, lists, numbers and strings, which must be the same in a resumed run."""
        return {
            "sparsity": self.sparsity.plain(),
            "turnover": self.turnover.plain(),
            "birth": None,
            **self.names,
            "every": self.every,
            "granularity": str(self.units),
            "redistribute": self.redistribute,
            "rounds": self.rounds,
            "score_batches": self.score_batches,
            "rewind": [self.rewind.to, self.rewind.reinit] if self.rewind else None,
            "reconstruct": self.reconstruct,
            "include": list(self.include) if self.include else None,
            "exclude": list(self.exclude) if self.exclude else None,
            "seed": self.seed,
        }

    def with_times(self, plain: dict[str, Any]) -> Recipe:
        """Return the recipe with the resolved times of another run's :meth:`plain`."""
        rewind = self.rewind and replace(self.rewind, to=plain["rewind"][0])
        sparsity, turnover = from_plain(plain["sparsity"]), from_plain(plain["turnover"])
        return replace(self, sparsity=sparsity, turnover=turnover, every=plain["every"], rewind=rewind)


def _check_curve(name: str, curve: object) -> None:
    """Refuse what is no curve, and a class of one's own whose values the engine would not ask for."""
    if not isinstance(curve, Curve):
        value = curve if isinstance(curve, float) and 0 <= curve < 1 else 0.9 if name == "sparsity" else 0.3
        raise SparsityError(f"{name}={curve!r} is not a Curve: write {name}=Curve({value}) for a constant")
    if type(curve).__call__ is not Curve.__call__:
        raise SparsityError(
            f"{name} is a {type(curve).__qualname__}, whose own __call__ would never be asked: a curve is made of segments; "
            "write one such as Curve(0.0).then(0.5, 0.9, 'cubic'), or Curve(0.0).stairs(0.5, 0.9, 100)"
        )


def check_same_recipe(asked: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    """Raise a SparsityError unless a state's recipe is the one asked for, both as :meth:`Recipe.plain` gives them."""
    # Earlier versions wrote the paths of functions within this library.
    saved = {name: without_our_paths(said) if isinstance(said, str) else said for name, said in recipe.items()}
    changed = [f"{name}: {saved.get(name)!r} -> {asked[name]!r}" for name in asked if asked[name] != saved.get(name)]
    if changed:
        raise SparsityError(
            f"the checkpoint was made with other arguments ({'; '.join(changed)}): resume with the same ones, or start "
            "a new training from its weights (without ckpt_path)"
        )
