"""The engine in a plain torch loop, or under Fabric."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any
from weakref import WeakSet

from torch import nn
from torch.optim import Optimizer

from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.engine.engine import Engine
from lightning_sparse.engine.plan_check import foresee
from lightning_sparse.engine.recipe import Recipe
from lightning_sparse.engine.returned import check_loss_fn
from lightning_sparse.engine.scores.of_network import Network, looking_at
from lightning_sparse.engine.times import check_total
from lightning_sparse.errors import SparsityError

_engines: WeakSet[Engine] = WeakSet()


def attach(
    optimizer: Optimizer,
    model: nn.Module,
    recipe: Any,
    *,
    total_steps: int | None = None,
    state: Mapping[str, Any] | None = None,
    batches: Sequence[Any] = (),
    loss_fn: Callable[[Any, Any], Any] | None = None,
) -> Engine:
    """Follow a recipe in a plain torch loop, or under Fabric, with one line before the loop.

    Args:
        optimizer: the optimizer that trains ``model`` (Fabric's wrapper is fine).
        model: the model, bare or in the wrapper of Fabric, DDP or ``torch.compile``, whose prefix the masks' names leave
            out. Linear and Conv weights become sparse unless the recipe says otherwise.
        recipe: a :class:`Recipe`, or a sparsity callback such as ``GradualPruning(0.9)``.
        total_steps: how many optimizer steps the loop will take, if a time of the recipe is a share of the training.
        state: an engine's ``state_dict()``, to go on where it stopped; load the states of model and optimizer first.
            Without it training starts anew, which zeroes weights if the recipe starts sparse.
        batches: training batches on the model's device, for a score of the whole network (``"snip"``, ``"grasp"``,
            ``"synflow"``), which reads as many as the recipe's ``score_batches``.
        loss_fn: ``loss_fn(model, batch)``, a scalar tensor, for such a score.

    Raises:
        SparsityError: if something else is given, or if an engine that was attached to the optimizer before, and not detached
            since, prunes one of the parameters.

    Returns:
        The engine: its ``masks``, ``sparsity``, ``history`` and ``state_dict()``. Call ``detach()`` to stop.

    Example:
        >>> import torch
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
    loss_fn = getattr(recipe, "loss_fn", None) if loss_fn is None else loss_fn
    recipe = getattr(recipe, "recipe", recipe)
    if not isinstance(recipe, Recipe):
        raise SparsityError(
            f"recipe={recipe!r} is not a recipe: give a Recipe(...) or a callback such as GradualPruning(0.9)"
        )
    _check_kinds(optimizer, model, state, batches)
    check_loss_fn(loss_fn, "model")
    check_total("total_steps", total_steps)
    bare = _bare(model)
    parameters = sparsifiable(bare, recipe.include, recipe.exclude)
    _refuse_shards(parameters)

    def look(count: int) -> AbstractContextManager[Network]:
        return looking_at(bare, parameters, list(islice(batches, count)), loss_fn or _no_loss)

    engine = Engine(parameters, recipe, total_steps, bare, look if batches else None)
    try:
        engine.install([optimizer])
        _refuse_second(engine)
        engine.watch(model)
        if state is None:
            engine.birth()
        else:
            engine.load_state_dict(state)
    except BaseException:
        engine.detach()  # nothing of what was refused stays in the optimizer
        raise
    _engines.add(engine)
    foreseen = foresee(recipe, engine.plan, engine.masks, total_steps) if total_steps and state is None else None
    if foreseen:
        warnings.warn(foreseen, stacklevel=2)
    return engine


def _refuse_shards(parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse weights of which this process has a part: connections are ranked against all others."""
    for name, parameter in parameters.items():
        if any(kind.__name__ == "DTensor" for kind in type(parameter).__mro__):
            raise SparsityError(
                f"{name!r} is sharded, and connections cannot be ranked against those of other processes: attach before "
                "fully_shard(), call detach(), and hold the masks on the shards as examples/sharded.py does; or use DDP"
            )


def _refuse_second(engine: Engine) -> None:
    """Refuse an engine if another one prunes a parameter in the same optimizer: each would undo what the other does."""
    for other in _engines:
        theirs = {id(parameter) for parameter in other.parameters.values()}
        shared = [name for name, parameter in engine.parameters.items() if id(parameter) in theirs]
        if shared and not {*map(id, engine.optimizers)}.isdisjoint(map(id, other.optimizers)):
            raise SparsityError(
                f"an engine that was attached to this optimizer before prunes {shared[0]!r}: call that engine's detach(), or "
                f"leave the parameter to one of the two, such as by exclude=[{shared[0]!r}]"
            )


def _check_kinds(optimizer: object, model: object, state: object, batches: object) -> None:
    check_module(model)
    if isinstance(optimizer, type) or not all(hasattr(optimizer, name) for name in ("step", "param_groups")):
        raise SparsityError(
            f"optimizer={optimizer!r} is not an optimizer: give torch.optim.SGD(model.parameters(), lr=0.1)"
        )
    if not (state is None or (isinstance(state, Mapping) and "recipe" in state)):
        raise SparsityError("state= is no state of an engine: give engine.state_dict() of an earlier run, or None")
    if isinstance(batches, str | bytes | Mapping) or hasattr(batches, "shape") or not isinstance(batches, Iterable):
        raise SparsityError(f"batches={batches!r} is not a list of batches: write batches=[batch]")


def _no_loss(model: Any, batch: Any) -> Any:
    raise SparsityError("this score needs a loss: give attach() loss_fn=(model, batch) -> scalar tensor")


def _bare(model: nn.Module) -> nn.Module:
    """The model without the wrappers that put a prefix before its parameters' names."""
    parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    for wrapped in ("_forward_module", "_orig_mod", *(["module"] if parallel else [])):  # Fabric, torch.compile
        inner = model._modules.get(wrapped)
        if inner is not None:
            return _bare(inner)
    return model
