"""The engine: when a mask update is due, and how it hooks into an optimizer."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_sparse.anatomy.modules import check_tensors
from lightning_sparse.anatomy.parameters import Targets
from lightning_sparse.anatomy.rewritten import watch_for_rewriting
from lightning_sparse.engine.changing import change_masks
from lightning_sparse.engine.checkpoints import check_state, damaged
from lightning_sparse.engine.clock import Clock
from lightning_sparse.engine.distributed import check_same_masks
from lightning_sparse.engine.followers import Followers
from lightning_sparse.engine.leaks import leaks, refuse_leaks
from lightning_sparse.engine.masks import Masks
from lightning_sparse.engine.optimizers import forget_history, refuse_orphans
from lightning_sparse.engine.recipe import Recipe, check_same_recipe
from lightning_sparse.engine.rewinding import Rewinding
from lightning_sparse.engine.scoring import Look, Scoring
from lightning_sparse.engine.stepping import Stepping
from lightning_sparse.engine.tied_channels import TiedChannels, tied
from lightning_sparse.engine.times import check_total
from lightning_sparse.engine.update import Update
from lightning_sparse.errors import SparsityError


class Engine:
    """Keeps the masks of some parameters through training, following a recipe.

    Args:
        parameters: the sparsifiable parameters, by name, as :func:`~lightning_sparse.sparsifiable` returns them.
        recipe: what to do.
        total_steps: optimizer steps of the whole training, for times that are shares of it.
        model: what the parameters belong to, for recipes that rewind.
        look: takes a number of batches, and returns a context that yields a Network for scores of the whole network.

    Attributes:
        masks: the masks, by parameter name.
        followers: biases and BatchNorms that die with tied channels; none at other granularities.
        idle: True while optimizer steps are not steps of training: then dead weights are zeroed, and nothing else is done.
        history: every :class:`Update` so far.
        plan: the recipe with its times in steps.

    Raises:
        SparsityError: if a time is a share and the length is not known, or if the recipe cannot be followed on these
            parameters, as when a sparsity would leave fewer connections than layers.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        recipe: Recipe,
        total_steps: int | None = None,
        model: nn.Module | None = None,
        look: Look | None = None,
    ) -> None:
        check_tensors("parameters", parameters)
        if not isinstance(recipe, Recipe):
            raise SparsityError(f"recipe={recipe!r} is not a recipe: give a Recipe(...)")
        check_total("total_steps", total_steps)
        self.parameters = copy(parameters) if isinstance(parameters, Targets) else dict(parameters)
        recipe.check(parameters)
        if isinstance(recipe.units, TiedChannels):
            recipe = replace(recipe, granularity=tied(recipe.units, parameters, look))
        self.recipe = recipe
        self.plan = recipe.resolve(total_steps)
        self.masks = Masks.dense(
            self.parameters, recipe.compact_masks or all(weight.is_cpu for weight in self.parameters.values())
        )
        self.followers = Followers(model, recipe.units)
        self.history: list[Update] = []
        self._scoring = Scoring(recipe, parameters, look)
        self._scoring.try_own()
        self._scoring.try_inputs()
        if self.plan.rewind is not None and model is None:
            raise SparsityError("rewind= needs the model: build the Engine with model=")
        self._rewinding = Rewinding(self.plan.rewind, model, recipe.seed + 1) if self.plan.rewind and model else None
        self.idle = False
        self._gradients = self._scoring.gradients
        self._clock = Clock()
        self._next_due = self.plan.next_due(0)
        self._stepping = Stepping(self.parameters, self.masks, self._gradients, self.gradients_wanted)
        self._stepping.stepped, self._stepping.leaked = self._count, self._refuse
        self._watches: list[Callable[[], object]] = []
        self._verified = 0
        self._waiting: int | None = None

    @property
    def sparsity(self) -> float:
        """Share of the sparsifiable weights that are dead and zero, in [0, 1], counted in the weights themselves."""
        return (self.masks.total - self.masks.living - sum(self.leaks().values())) / self.masks.total

    @property
    def clock(self) -> int:
        """Optimizer steps taken: accumulated batches and skipped steps do not count."""
        return self._clock.steps

    @property
    def rewound(self) -> int:
        """How often the weights have been rewound."""
        return self._rewinding.done if self._rewinding else 0

    @property
    def installed(self) -> bool:
        """Whether the engine is hooked into optimizers now."""
        return self._stepping.installed

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizers that it is hooked into and that train its parameters."""
        return self._stepping.optimizers

    @property
    def masked(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """All parameters that have dead entries, and their masks: the sparse ones, and what dies with tied channels."""
        both: Any = ChainMap(self.masks, self.followers.masks)  # type: ignore[arg-type]  # only read
        return {**self.parameters, **self.followers.parameters}, both

    @property
    def updates_to_come(self) -> bool:
        """Whether the masks may still change."""
        return self._next_due is not None

    @property
    def at_target(self) -> bool:
        """Whether the sparsity has reached its final value."""
        return self.clock >= self.plan.sparsity.settled

    def install(self, optimizers: Sequence[Optimizer]) -> None:
        """Hook the engine into the optimizers, and into those inside them (Lookahead's, SAM's, accelerate's).

        The first that steps a parameter of the engine is the clock; after a step of any of them its own parameters are
        masked again. Frozen parameters need no optimizer; if one is unfrozen and given to an optimizer later, it is masked
        from then on.

        Raises:
            SparsityError: if a trainable parameter belongs to none of them.
        """
        self.detach()
        self._stepping.install(optimizers)
        self.followers.install(optimizers)
        orphans = [n for n, p in self.parameters.items() if p.requires_grad and n not in self._stepping.owners]
        if orphans:
            refuse_orphans(orphans, self.masks, self.recipe.exclude or ())

    def watch(self, model: nn.Module) -> None:
        """Refuse, in the next forward pass, layers of a model that rewrite a sparse weight; call it after :meth:`install`."""
        self._watches = watch_for_rewriting(model, self.parameters)

    def detach(self) -> None:
        """Remove every hook from the optimizers and the model; masks and history stay."""
        self._stepping.detach()
        self.followers.detach()
        for off in self._watches:
            off()
        self._watches = []

    def before_step(self, optimizer: Optimizer, *, zero_dead: bool = False) -> None:
        """Read the dense gradients if the coming step needs them; call it before they are clipped.

        Without this call they are read when the step begins or after it, as they stand then.

        Args:
            optimizer: the one that is about to step.
            zero_dead: whether to zero the gradients of dead connections then, so that a norm that is clipped is the norm
                of the living.
        """
        self._stepping.before_step(optimizer, zero_dead=zero_dead)

    def zero_dead(self) -> None:
        """Zero the dead weights, where something else than an optimizer has written to them."""
        self.masks.apply(self.parameters)
        self._stepping.zero_dead()
        self.followers.zero_dead()

    def moved(self) -> bool:
        """Whether torch has counted a write to a weight since the dead were zeroed the last time; costs next to nothing."""
        return self._stepping.moved()

    def narrow(self, cuts: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
        """Go on with narrower parameters; what is cut off goes on to count as the dead or living that it was.

        Args:
            cuts: by name of a parameter that is narrower now: what makes a tensor of its old shape one of the new.
        """
        self.masks.narrow(cuts)
        self.followers.narrow(cuts)
        self._gradients.forget()
        self.zero_dead()

    def leaks(self) -> dict[str, int]:
        """How many dead weights are not zero, by the name of their parameter, if there are any."""
        return leaks(self.parameters, self.masks)

    def verify(self) -> None:
        """Raise a SparsityError that says which and since when, if a dead weight is not zero; one pass over the weights."""
        self._refuse(self.leaks() | self.followers.leaks())
        self._stepping.mark()
        self._verified = self.clock

    def _refuse(self, found: Mapping[str, int]) -> None:
        if found:
            reached = {name for name, parameter in self.parameters.items() if parameter.grad is not None}
            left_out = bool(reached) and next(iter(found)) not in reached
            refuse_leaks(found, self.clock, self._verified, self.optimizers, no_gradient=left_out)

    def birth(self) -> None:
        """Make the masks that hold before the first step, if the recipe's sparsity starts above zero."""
        self.recipe.check(self.parameters)  # of tied channels it is known only now how many can die
        if self.plan.due(0):
            self.update()
        self.zero_dead()
        if self._rewinding:
            self._rewinding.keep(0)

    def _count(self, skipped: Tensor | None) -> None:
        """Count a step of the clock, unless it was skipped, and do what is due after it."""
        if self.idle:
            return
        self._clock.count(skipped)
        if self._may_be_due():
            if not skipped and self._do_step():
                self.masks.apply(self.parameters)  # connections have died in other optimizers' parameters too
                if self._rewinding:
                    self._rewinding.keep(self.clock)
            self._gradients.forget()

    def _do_step(self) -> bool:
        """Show the step to the scores and do an update that is due; return whether it was due, or weights are to be kept."""
        step = self._due(self.clock)
        due = step is not None
        if self.watching or due:
            self._gradients.complete()
            self.masks.apply(self.parameters)  # the step has moved dead weights too, and a newborn starts at zero
            self._scoring.observe()
        if step is not None and not self._gradients and self._reads_gradients(step):
            # A batch was left out (training_step returned None). If none comes until the next update, none will.
            due = self._waiting is not None and step == self.clock
            self._waiting = None if due else step
        if due:
            died = self.update().died
            self._waiting = None
            if died and self._rewinding:
                self._rewinding.go_back(self.optimizers, last=self.at_target)
                self.followers.zero_dead()
        return due or bool(self._rewinding and self._rewinding.is_due(self.clock))

    def _may_be_due(self, ahead: int = 0) -> bool:
        """Whether something may have to be done ``ahead`` steps from now, without waiting for the device to be sure."""
        latest = self._clock.latest + ahead
        if self.watching or (self._next_due is not None and latest >= self._next_due):
            return True
        return self._rewinding is not None and self._rewinding.is_due(latest)

    @property
    def watching(self) -> bool:
        """Whether a score is still to be shown every step."""
        return self._scoring.watching and self._next_due is not None

    def gradients_wanted(self) -> bool:
        """Whether the coming step needs dense gradients, those of dead connections among them."""
        if not self._may_be_due(1):
            return False
        if self.watching:
            return True
        step = self.clock + 1
        due = self._due(step)
        return due is not None and self._reads_gradients(due)

    def _due(self, step: int) -> int | None:
        """The step whose update is to be done after ``step``: that one, or one that still waits for gradients, or None."""
        return step if self.plan.due(step) else self._waiting

    def _reads_gradients(self, step: int) -> bool:
        """Whether the update that is due after a step reads gradients."""
        asked = self._asked_living(step)
        grows = self.plan.turnover_at(step) > 0.0 or self.masks.living < asked < self.masks.total
        return self._scoring.reads_gradients(grows=grows)

    def _asked_living(self, step: int) -> int:
        return self.masks.total - round(self.plan.sparsity(step) * self.masks.total)

    @torch.no_grad()
    def update(self) -> Update:
        """Do one mask update for the present step, and return what was done: the new last entry of ``history``.

        Exactly ``round(sparsity * total)`` connections are dead after it (``next_masks`` in ``engine/update.py``).
        """
        step = self.clock
        living, turnover = self._asked_living(step), self.plan.turnover_at(self._due(step) or step)
        died, born, replaced, shortfall = change_masks(
            self.masks,
            self.parameters,
            self.recipe,
            self._scoring,
            self._stepping.owners,
            living,
            turnover,
            at_birth=step == 0,
        )
        self.followers.follow(self.masks)
        if died or born:
            for optimizer in self.optimizers:
                forget_history(optimizer)
        update = Update(
            step=step,
            phase=self.plan.sparsity.phase(step) or self.plan.turnover.phase(step),
            asked=self.plan.sparsity(step),
            sparsity=self.masks.sparsity,
            died=died,
            born=born,
            replaced=replaced,
            shortfall=shortfall,
            turnover=replaced / self.masks.living,
        )
        self.history.append(update)
        self._next_due = self.plan.next_due(step)
        check_same_masks(self.masks, f"drop={self.recipe.names['drop']!r}, grow={self.recipe.names['grow']!r}")
        return update

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, in tensors, numbers, strings, lists and dicts."""
        return {
            "lightning_sparse": 1,
            "recipe": self.recipe.plain(),
            "plan": self.plan.plain(),
            "clock": self.clock,
            "waiting": self._waiting,
            "masks": self.masks.pack(),
            "removed": list(self.masks.removed),
            **self._scoring.state_dict(),
            "rewinding": self._rewinding.state_dict() if self._rewinding else {},
            "history": [asdict(update) for update in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Go on from the :meth:`state_dict` of another run.

        Returns:
            Whether this run would have had the same times in steps; those of the state hold in any case.

        Raises:
            SparsityError: if the recipe is not the one that the state was made with, if the masks do not fit, or if the
                state is damaged.
        """
        check_state(state)
        try:
            return self._load(state)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise damaged(f"{type(error).__name__}: {error}") from error

    def _load(self, state: Mapping[str, Any]) -> bool:
        check_same_recipe(self.recipe.plain(), state["recipe"])
        plan, times = self.plan.plain(), ("sparsity", "turnover", "every", "rewind")
        same_times = all(state["plan"][name] == plan[name] for name in times)
        self.plan = self.plan.with_times(state["plan"])
        self._clock.start_at(int(state["clock"]))
        self._verified, self._waiting = self.clock, state.get("waiting")
        self._next_due = self._waiting or self.plan.next_due(self.clock)
        self.masks.unpack(state["masks"])
        dead, read = state.get("removed", (0, 0))
        self.masks.removed = (int(dead), int(read))
        self.followers.follow(self.masks)
        self._scoring.load_state_dict(state)
        if self._rewinding:
            self._rewinding.load_state_dict(state["rewinding"])
        self.history = [Update(**update) for update in state["history"]]
        self.zero_dead()
        return same_times
