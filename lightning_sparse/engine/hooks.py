"""Optimizers, bare or in each other's hands: which of them steps, and how something is called around every step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import ASGD, SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop, Rprop

# Each weight moves by its own gradient and its own state alone. Subclasses may do anything, and are not meant.
ELEMENTWISE = (SGD, ASGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop, Rprop)

# Methods with which sharpness-aware minimization moves the weights to where the second gradient is taken.
PERTURBING = ("first_step", "perturb_weights")

Before = Callable[[Optimizer, tuple[Any, ...], dict[str, Any]], Any]
After = Callable[[Optimizer, tuple[Any, ...], dict[str, Any]], None]


def is_elementwise(optimizer: Optimizer) -> bool:
    """Whether it is known that the gradient of one weight does not reach another weight.

    Muon, SOAP, LAMB, Adafactor and 8-bit states in blocks mix them, and so may any other that is not torch's own.
    """
    return type(optimizer) in ELEMENTWISE


def is_trainers_own(optimizer: Optimizer) -> bool:
    """Whether it is the wrapper of Lightning or Fabric, which calls nothing but the ``step`` of the one inside."""
    return any(kind.__name__ in ("LightningOptimizer", "_FabricOptimizer") for kind in type(optimizer).__mro__)


def count_of(optimizer: Optimizer) -> int:
    """How many parameters an optimizer trains."""
    return sum([len(group["params"]) for group in optimizer.param_groups])


def nested(optimizer: Optimizer) -> list[Optimizer]:
    """An optimizer and all those inside it, innermost first.

    Lightning's and Fabric's wrappers hold one, as do accelerate's, Lookahead and SAM.

    Example:
        >>> inner = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        >>> class Wrapper(Optimizer):
        ...     def __init__(self, inner):
        ...         self.inner, self.param_groups = inner, inner.param_groups
        >>> [type(each).__name__ for each in nested(Wrapper(inner))]
        ['SGD', 'Wrapper']
    """
    seen = {id(optimizer)}

    def visit(each: Optimizer) -> Iterator[Optimizer]:
        for inner in _held(each):
            if id(inner) not in seen:
                seen.add(id(inner))
                yield from visit(inner)
        yield each

    return list(visit(optimizer))


def _held(optimizer: Optimizer) -> Iterator[Optimizer]:
    for value in vars(optimizer).values():
        values = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else [value]
        if isinstance(value, str | Tensor):
            continue
        yield from (each for each in values if isinstance(each, Optimizer))


def around_step(optimizer: Optimizer, before: Before, after: After) -> list[Callable[[], None]]:
    """Call ``before`` and ``after`` around every step, as torch calls its hooks; return what takes them off again.

    Wrappers that never call ``Optimizer.__init__`` have no hooks, or such as never fire: their ``step`` is wrapped. Neither
    is part of a compiled step's graph.
    """
    disable: Any = torch.compiler.disable
    before, after = disable(before), disable(after)
    if hasattr(optimizer, "_optimizer_step_post_hooks") and getattr(type(optimizer).step, "hooked", False):
        handles = optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)
        return [handle.remove for handle in handles]
    return around_method(optimizer, "step", before, after)


def around_method(optimizer: Optimizer, name: str, before: Before, after: After) -> list[Callable[[], None]]:
    """Likewise around another method, if there is one of this name."""
    if not hasattr(optimizer, name):
        return []
    method, own = getattr(optimizer, name), name in vars(optimizer)

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        changed = before(optimizer, (optimizer, *args), kwargs)
        (_, *args_), kwargs_ = changed or ((optimizer, *args), kwargs)
        result = method(*args_, **kwargs_)
        after(optimizer, (optimizer, *args_), kwargs_)
        return result

    def off() -> None:
        if vars(optimizer).get(name) is wrapped:
            if own:
                setattr(optimizer, name, method)
            else:
                delattr(optimizer, name)

    setattr(optimizer, name, wrapped)
    return [off]


def with_closure(
    args: tuple[Any, ...], kwargs: dict[str, Any], then: Callable[[], None]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments of a ``step`` (its optimizer first), ``then`` called after its closure; None if it was given none."""

    def followed(closure: Callable[[], Any]) -> Callable[[], Any]:
        def evaluate() -> Any:
            loss = closure()
            then()
            return loss

        return evaluate

    if callable(kwargs.get("closure")):
        return args, {**kwargs, "closure": followed(kwargs["closure"])}
    if len(args) > 1 and callable(args[1]):
        return (args[0], followed(args[1]), *args[2:]), kwargs
    return None
