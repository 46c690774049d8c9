"""The one engine: when a mask update is due, what it does, and how it hangs on an optimizer. No Lightning in here."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_sparse.allocation import ALLOCATIONS, Allocation
from lightning_sparse.criteria import DROP, GROW, Layer, Score, needs_gradient_of
from lightning_sparse.errors import SparsityError
from lightning_sparse.masks import Masks
from lightning_sparse.optimizer_state import forget_history, gradient_scale, start_newborns, step_was_skipped
from lightning_sparse.parameters import sparsifiable
from lightning_sparse.recipe import Recipe
from lightning_sparse.times import check_total
from lightning_sparse.update import ScoresOnce, Update, next_masks


class Engine:
    """Keeps the masks of some parameters through training, following a recipe.

    Args:
        parameters: the sparsifiable parameters, by name.
        recipe: what to do.
        total_steps: optimizer steps of the whole training, for times that are shares of it.

    Attributes:
        masks: the masks, by parameter name.
        clock: optimizer steps really taken (accumulated batches and skipped steps are not).
        history: every :class:`Update` so far.
        plan: the recipe with its times in steps.

    Raises:
        SparsityError: if a time is a share and the length is not known, or if some sparsity on the way would leave fewer
            connections than layers.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], recipe: Recipe, total_steps: int | None = None) -> None:
        self.parameters = dict(parameters)
        self.recipe = recipe
        self.plan = recipe.resolve(total_steps)
        self.masks = Masks.dense(self.parameters)
        self.clock = 0
        self.history: list[Update] = []
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self._drop = _score(recipe.drop, DROP)
        self._grow = _score(recipe.grow, GROW)
        allocation = recipe.allocation
        self._allocation: Allocation = ALLOCATIONS[allocation] if isinstance(allocation, str) else allocation
        self._watching = [score for score in (self._drop, self._grow) if hasattr(score, "observe")]
        self._gradients: dict[str, Tensor] = {}
        self._optimizers: dict[str, Optimizer] = {}
        self._clock_optimizer: Optimizer | None = None
        self._handles: list[RemovableHandle] = []
        self._warned = False
        self._check_room()

    @property
    def sparsity(self) -> float:
        """Sparsity achieved, in [0, 1]."""
        return self.masks.sparsity

    def install(self, optimizers: Sequence[Optimizer]) -> None:
        """Hang the engine on the optimizers that own its parameters.

        The first of them is the clock; after a step of any of them its own parameters are masked again.

        Raises:
            SparsityError: if a parameter belongs to none of them.
        """
        self.detach()
        for optimizer in map(_unwrap, optimizers):
            owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            mine = [name for name, parameter in self.parameters.items() if id(parameter) in owned]
            if mine:
                self._optimizers.update(dict.fromkeys(mine, optimizer))
                self._clock_optimizer = self._clock_optimizer or optimizer
                self._handles.append(optimizer.register_step_post_hook(self._after_step))
            if isinstance(optimizer, LBFGS):
                # It moves the weights many times inside one step, along directions built from gradients.
                for name in mine:
                    hook = partial(self._hide_dead_gradients, name)
                    self._handles.append(cast(Any, self.parameters[name]).register_post_accumulate_grad_hook(hook))
        orphan = next((name for name in self.parameters if name not in self._optimizers), None)
        if orphan is not None:
            raise SparsityError(
                f"no optimizer owns {orphan!r}, so its connections could not learn: give it to an optimizer, or leave it "
                f"out with exclude=[{orphan!r}]"
            )

    def detach(self) -> None:
        """Take every hook off the optimizers; masks and history stay."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._optimizers, self._clock_optimizer = [], {}, None

    def birth(self) -> None:
        """Make the masks that hold before the first step, if the recipe's sparsity starts above zero."""
        if self.plan.due(0):
            self.update()
        self.masks.apply(self.parameters)

    def before_step(self, optimizer: Optimizer, *, zero_dead: bool = False) -> None:
        """Read the dense gradients, where the coming step needs them; call it before they are clipped.

        Without this call they are read after the step, as they stand then.

        Args:
            optimizer: the one that is about to step.
            zero_dead: whether to zero the gradients of dead connections then, so that a norm that is clipped is the norm
                of the living.
        """
        optimizer = _unwrap(optimizer)
        if isinstance(optimizer, LBFGS):
            return  # its gradients are read and hidden as they arise
        owned = {name: p for name, p in self.parameters.items() if self._optimizers.get(name) is optimizer}
        # Whatever a skipped step left behind is replaced, not used.
        self._gradients = {name: g for name, g in self._gradients.items() if name not in owned}
        if self._gradients_wanted():
            self._gradients |= {name: p.grad.detach().clone() for name, p in owned.items() if p.grad is not None}
        if zero_dead:
            self.masks.apply({name: p.grad for name, p in owned.items() if p.grad is not None})

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Tick the clock, update the masks if that is due, and zero the dead weights."""
        if step_was_skipped(optimizer):
            self._gradients = {}
            return
        if optimizer is self._clock_optimizer:
            wanted = self._gradients_wanted()
            self.clock += 1
            if wanted:
                self._collect_gradients(optimizer)
                for score in self._watching:
                    for name in self.parameters:
                        cast(Any, score).observe(self._layer(name))
            due = self.plan.due(self.clock)
            if due:
                self.update()
            self._gradients = {}
            if due:  # connections have died in other optimizers' parameters too
                self.masks.apply(self.parameters)
                return
        self.masks.apply({name: p for name, p in self.parameters.items() if self._optimizers[name] is optimizer})

    def _hide_dead_gradients(self, name: str, parameter: Tensor) -> None:
        if parameter.grad is not None:
            if self._gradients_wanted():
                self._gradients[name] = parameter.grad.detach().clone()
            self.masks.apply({name: parameter.grad})

    def _gradients_wanted(self) -> bool:
        step = self.clock + 1
        if self._watching:
            return True
        if not self.plan.due(step):
            return False
        grows = self.plan.turnover_at(step) > 0.0 or self._asked_living(step) > self.masks.living
        return needs_gradient_of(self._drop) or (grows and needs_gradient_of(self._grow))

    def _collect_gradients(self, optimizer: Optimizer) -> None:
        for name, parameter in self.parameters.items():
            if name not in self._gradients and parameter.grad is not None:
                self._gradients[name] = parameter.grad.detach()
        scale = gradient_scale(optimizer)
        if scale is not None:
            self._gradients = {name: gradient / scale for name, gradient in self._gradients.items()}
        missing = [name for name in self.parameters if name not in self._gradients]
        if missing and self._gradients:  # layers that this step did not use: their connections pull at nothing
            if not self._warned:
                warnings.warn(f"no gradient for {', '.join(missing)}: scored as zero", stacklevel=2)
                self._warned = True
            self._gradients |= {name: torch.zeros_like(self.parameters[name]) for name in missing}

    def _asked_living(self, step: int) -> int:
        return self.masks.total - round(self.plan.sparsity(step) * self.masks.total)

    def _layer(self, name: str) -> Layer:
        return Layer(name, self.parameters[name].detach(), self._gradients.get(name), self.generator)

    @torch.no_grad()
    def update(self) -> Update:
        """Do one mask update, for the step that the clock shows.

        Exactly ``round(sparsity * total)`` connections are dead after it; see :func:`lightning_sparse.update.next_masks`.

        Returns:
            What was done, which is also the last entry of ``history``.
        """
        before = dict(self.masks)
        drop, grow = ScoresOnce(self._drop, self._layer), ScoresOnce(self._grow, self._layer)
        share = self.plan.turnover_at(self.clock)
        after, replaced, shortfall = next_masks(
            before, self._asked_living(self.clock), share, drop, grow, self._allocation
        )
        died, born = self._take(before, after)
        update = Update(
            step=self.clock,
            phase=self.plan.sparsity.phase(self.clock),
            asked=self.plan.sparsity(self.clock),
            sparsity=self.masks.sparsity,
            died=died,
            born=born,
            replaced=replaced,
            shortfall=shortfall,
            turnover=replaced / self.masks.living,
        )
        self.history.append(update)
        return update

    def _take(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> tuple[int, int]:
        """Make ``after`` the masks, start the newborns, and return how many died and how many were born."""
        died = born = 0
        for name, mask in after.items():
            newborn = mask & ~before[name]
            births = int(newborn.count_nonzero())
            if births and name in self._optimizers:
                start_newborns(self._optimizers[name], self.parameters[name], newborn, before[name])
            born += births
            died += int((before[name] & ~mask).count_nonzero())
            self.masks.set(name, mask)
        if died or born:
            for optimizer in set(self._optimizers.values()):
                forget_history(optimizer)
        return died, born

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, in tensors, numbers, strings, lists and dicts."""
        return {
            "lightning_sparse": 1,
            "recipe": self.recipe.plain(),
            "plan": self.plan.plain(),
            "clock": self.clock,
            "masks": self.masks.pack(),
            "generator": self.generator.get_state(),
            "scores": [cast(Any, score).state_dict() for score in self._watching],
            "history": [asdict(update) for update in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Go on where another run stopped.

        Args:
            state: what :meth:`state_dict` gave.

        Returns:
            Whether the times in steps are those that this run would have had; those of the state hold in any case.

        Raises:
            SparsityError: if the recipe is not the one that the state was made with, or the masks do not fit.
        """
        asked, saved = self.recipe.plain(), state["recipe"]
        changed = [f"{name}: {saved[name]!r} -> {asked[name]!r}" for name in asked if asked[name] != saved.get(name)]
        if changed:
            raise SparsityError(
                f"the checkpoint was made with other arguments ({'; '.join(changed)}): resume with the same ones, or start "
                "a new training from its weights (without ckpt_path)"
            )
        same_times = bool(state["plan"] == self.plan.plain())
        self.plan = self.plan.with_times(state["plan"])
        self.clock = int(state["clock"])
        self.masks.unpack(state["masks"])
        self.generator.set_state(state["generator"])
        for score, remembered in zip(self._watching, state["scores"], strict=True):
            cast(Any, score).load_state_dict(remembered)
        self.history = [Update(**update) for update in state["history"]]
        self.masks.apply(self.parameters)
        return same_times

    def _check_room(self) -> None:
        curve = self.plan.sparsity
        top = max([curve.start, *(segment.value for segment in curve.segments)])
        living, layers = self.masks.total - round(top * self.masks.total), len(self.parameters)
        if living < layers:
            raise SparsityError(
                f"sparsity {top} of {self.masks.total} connections leaves {living} for {layers} layers, and no layer is "
                f"emptied: ask for at most {1 - layers / self.masks.total:.6g}, or exclude layers"
            )


def attach(
    optimizer: Optimizer,
    model: nn.Module,
    recipe: Any,
    *,
    total_steps: int | None = None,
    state: Mapping[str, Any] | None = None,
) -> Engine:
    """Follow a recipe in a plain torch loop, or under Fabric: one line before the loop.

    Args:
        optimizer: the optimizer that trains ``model`` (Fabric's wrapper is fine).
        model: the model; Linear and Conv weights become sparse unless the recipe says otherwise.
        recipe: a :class:`Recipe`, or a sparsity callback such as ``GradualPruning(0.9)``.
        total_steps: how many optimizer steps the loop will take, if a time of the recipe is a share of the training.
        state: an engine's ``state_dict()``, to go on where it stopped; load the model's and the optimizer's own states
            before. Without it the network is born anew, which zeroes weights if the recipe starts sparse.

    Returns:
        The engine: its ``masks``, ``sparsity``, ``history`` and ``state_dict()``. Call ``detach()`` to stop.

    Example:
        >>> from lightning_sparse import attach, Recipe, cubic
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Linear(20, 5)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> engine = attach(optimizer, model, Recipe(cubic(0.9, end=0.75)), total_steps=40)
        >>> for _ in range(40):
        ...     optimizer.zero_grad()
        ...     model(torch.randn(8, 20)).square().mean().backward()
        ...     optimizer.step()
        >>> engine.sparsity, int((model.weight == 0).sum())
        (0.9, 90)
    """
    recipe = getattr(recipe, "recipe", recipe)
    if not isinstance(recipe, Recipe):
        raise SparsityError(
            f"recipe={recipe!r} is no recipe: give a Recipe(...) or a callback such as GradualPruning(0.9)"
        )
    check_total("total_steps", total_steps)
    engine = Engine(sparsifiable(model, recipe.include, recipe.exclude), recipe, total_steps)
    engine.install([optimizer])
    if state is None:
        engine.birth()
    else:
        engine.load_state_dict(state)
    return engine


def _score(choice: str | Score, named: Mapping[str, Any]) -> Score:
    score = named[choice] if isinstance(choice, str) else choice
    # A copy, so that a score's memory of one training is not carried into the next.
    return cast(Score, score() if isinstance(score, type) else copy.deepcopy(score))


def _unwrap(optimizer: Any) -> Optimizer:
    """The torch optimizer inside Lightning's or Fabric's wrapper, on whose hooks `step` calls."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer
    return cast(Optimizer, optimizer)
