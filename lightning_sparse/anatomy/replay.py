"""Run a model again on the same batch with another weight, and compute only what follows the first use of that weight."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from lightning_sparse.anatomy.isolation import device_of

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


class Replay:
    """Passes of a model over one batch, of which all but the first compute nothing that comes before a changed weight.

    The first pass, :meth:`record`, keeps what every call of every module gave, and sees at which operation each weight is
    first used. In a later pass, :meth:`run`, calls that had ended before the first use of a changed weight give what they
    gave then, whole blocks at once, and do not run; from there on, everything is computed. The Python of the modules that
    hold the weight runs as ever, so any module will do: shared layers, residual sums, recurrent nets, weights that are used
    by another module than their own.

    A call is kept only if giving its result again is the same as computing it: it has drawn no random number, has written
    into none of its inputs, and gives a new tensor rather than a view of an input or a weight. A result that something later
    writes into is copied first. What cannot be seen (a scripted module, a weight used by no operation of torch's) is
    computed anew.

    Both kinds of passes belong inside :func:`~lightning_sparse.anatomy.isolation.untouched`, without gradients, eagerly
    (``torch.compiler.set_stance("force_eager")``) and from equal random states. All results of a batch are held in memory
    until the next.

    Attributes:
        draws: whether the recorded pass has drawn random numbers; if not, the others need no equal random states. True
            while it is recorded.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).requires_grad_(False)
        >>> batch = torch.rand(3, 4)
        >>> with replay(net, dict(net.named_parameters())) as passes:
        ...     first = passes.record(lambda: net(batch))
        ...     _ = net[2].weight.zero_()
        ...     again = passes.run(["2.weight"], lambda: net(batch))  # the last layer alone is computed
        >>> torch.equal(again, net[2].bias.expand(3, 2)), torch.equal(again, first)
        (True, False)
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self._model, self._weights = model, weights
        self._recorder: _Recorder | None = None
        self._calls: list[_Call] = []
        self._first: dict[str, int] = {}
        self._next = self._until = 0
        self.draws = True

    def latest_first(self) -> list[str]:
        """The names of the weights, that which was first used last in front.

        In this order, what a module remembers of its last run (an attribute, a buffer) is still that of the recorded pass
        in every pass that does not run it.
        """
        return sorted(self._weights, key=lambda name: self._first.get(name, 0), reverse=True)

    def record(self, forward: Callable[[], Tensor]) -> Tensor:
        """Run the whole pass, and keep what its calls give."""
        self._calls, self._first, self.draws = [], {}, True
        device = device_of(self._model)
        before = _random_states(device)
        with _Recorder(self._model, self._weights, self._calls) as self._recorder:
            try:
                result = forward()
            finally:
                recorder, self._recorder = self._recorder, None
        self._first, self.draws = recorder.first, before != _random_states(device)
        return result

    def run(self, changed: Collection[str], forward: Callable[[], Tensor]) -> Tensor:
        """Run the pass again, after the values of the ``changed`` weights alone were changed."""
        self._next, self._until = 0, min((self._first.get(name, 0) for name in changed), default=len(self._calls) + 1)
        try:
            return forward()
        finally:
            self._until = 0

    def call(self, module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stand in for the ``forward`` of one module."""
        if self._recorder is not None:
            return self._recorder.call(module, forward, args, kwargs)
        if self._until:
            call = self._calls[self._next] if self._next < len(self._calls) else None
            if (
                call is None or call.module is not module
            ):  # it went another way than before: from here on, all is computed
                self._until = 0
            elif call.end > self._until or not call.kept:
                self._next += 1
            elif call.kept.spoilt:
                self._until = 0
            else:
                self._next = call.following
                return call.kept.again()
        return forward(*args, **kwargs)


@contextmanager
def replay(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[Replay]:
    """Let a :class:`Replay` follow the calls of a model's modules, whose ``forward`` is put back afterwards.

    Args:
        model: any module.
        weights: by name, those that will be changed between two passes.
    """
    passes = Replay(model, weights)
    modules = [module for module in model.modules() if not _is_foreign(module)]
    before = [vars(module).get("forward") for module in modules]
    try:
        for module in modules:
            vars(module)["forward"] = _standing_in(passes, module, module.forward)
        yield passes
    finally:
        for module, own in zip(modules, before, strict=True):
            vars(module).pop("forward", None)
            if own is not None:
                vars(module)["forward"] = own


def _is_foreign(module: nn.Module) -> bool:
    """Whether its forward is better left alone: TorchScript's, and the shell of a compiled module, which calls one inside."""
    return isinstance(module, torch.jit.ScriptModule) or "_orig_mod" in module._modules


def _standing_in(passes: Replay, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        return passes.call(module, forward, args, kwargs)

    return stand_in


@dataclass
class _Call:
    module: nn.Module
    end: int = 0  # how many calls had ended when it ended, itself included; 0 before that
    following: int = 0  # the place of the next call that is not inside this one
    kept: _Kept | None = None


@dataclass
class _Tensor:
    """A result, or a part of one, and how often it had been written to."""

    value: Tensor
    version: int
    copied: bool = False  # if so, it is copied again each time that it is given, as it will be written to

    def copy(self) -> None:
        if not self.copied:
            self.value, self.copied = self.value.clone(), True
            self.version = self.value._version


class _Kept:
    """What a call gave: nested lists, tuples and mappings of tensors."""

    def __init__(self, result: Any, hold: Callable[[Tensor], _Tensor]) -> None:
        leaves, self._form = tree_flatten(result)
        self._leaves = [hold(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]

    @property
    def spoilt(self) -> bool:
        return any(isinstance(leaf, _Tensor) and leaf.value._version != leaf.version for leaf in self._leaves)

    def again(self) -> Any:
        leaves = [
            (leaf.value.clone() if leaf.copied else leaf.value) if isinstance(leaf, _Tensor) else leaf
            for leaf in self._leaves
        ]
        return tree_unflatten(leaves, self._form)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watch one pass: which call gives what, which operation reads a weight first, and which writes into a result."""

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor], calls: list[_Call]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.first: dict[str, int] = {}
        self._calls, self._ended, self._device = calls, 0, device_of(model)
        self._own = {_place(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self._unread: dict[int, list[str]] = {}
        for name, weight in weights.items():
            self._unread.setdefault(_place(weight), []).append(name)
        self._held: dict[int, list[_Tensor]] = {}

    def call(self, module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        call = _Call(module)
        self._calls.append(call)
        given = tree_leaves((args, kwargs))
        inputs = [(leaf, _version(leaf)) for leaf in given if isinstance(leaf, Tensor)]
        drawn = _random_states(self._device)
        result = forward(*args, **kwargs)
        self._ended += 1
        call.end, call.following = self._ended, len(self._calls)
        found = tree_leaves(result)
        if (
            all(map(_is_simple, (*given, *found)))
            and all(_version(leaf) == version for leaf, version in inputs)
            and not {_place(leaf) for leaf in found if isinstance(leaf, Tensor)}
            & (self._own | {_place(leaf) for leaf, _ in inputs})
            and drawn == _random_states(self._device)
        ):
            call.kept = _Kept(result, self._hold)
        return result

    def _hold(self, tensor: Tensor) -> _Tensor:
        """Keep a tensor, once if several calls give it, as a block and its last layer do."""
        there = self._held.setdefault(_place(tensor), [])
        for held in there:
            if held.value is tensor and held.version == tensor._version:
                return held
        there.append(_Tensor(tensor, tensor._version))
        return there[-1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._unread:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor):
                    self.first.update(dict.fromkeys(self._unread.pop(_place(leaf), ()), self._ended))
        for written in _written(func, args, kwargs):
            for held in self._held.pop(_place(written), ()):
                held.copy()
        return func(*args, **kwargs)


def _written(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """The tensors that an operation writes into."""
    if not isinstance(func, torch._ops.OpOverload) or not func._schema.is_mutable:
        return
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def _is_simple(leaf: Any) -> bool:
    """Whether a value can be given again as it is: an ordinary tensor, or no tensor and nothing that could hold one."""
    if isinstance(leaf, Tensor):
        return type(leaf) in (Tensor, nn.Parameter) and leaf.layout == torch.strided and not leaf.is_inference()
    return isinstance(leaf, _PLAIN)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def _random_states(device: torch.device) -> tuple[Any, ...]:
    own = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return torch.get_rng_state().numpy().tobytes(), own, random.getstate(), kind, np.asarray(keys).tobytes(), rest
