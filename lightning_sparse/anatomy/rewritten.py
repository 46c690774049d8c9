"""Layers that rewrite a weight in their forward pass, so that its zeros never reach the kernel."""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from fnmatch import fnmatchcase
from types import CodeType, MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from lightning_sparse.anatomy.isolation import fork_random_states
from lightning_sparse.anatomy.layer_calls import is_compiled
from lightning_sparse.errors import SparsityError

# torch's names of what multiplies an input with a weight.
_KERNELS = re.compile(
    r"(_?convolution|deform_conv2d|linear|matmul|(add|b|badd|addb|_scaled_|_grouped_)?mm|(add)?mv|dot|_trilinear"
    r"|embedding|_embedding_bag|mkldnn_rnn_layer|_cudnn_rnn)_?"
)

_REFUSAL = (
    "{name!r} is rewritten by the forward of {kind} (weight standardisation, normalisation, a sum) before the input is "
    "multiplied with it: zeros of the weight do not arrive there, and the layer would compute as if it were dense. {advice}"
)


def watch_for_rewriting(model: nn.Module, targets: Mapping[str, nn.Parameter]) -> list[Callable[[], object]]:
    """Check, in the next forward pass of each layer with a forward of its own, that zeros in its weights reach the kernels.

    Layers whose forward is torch's own are left alone. Any other that owns a target, or that reads one from a layer inside
    it, is watched once: a copy of the weight with zeros in it follows the real one through the forward pass. Nothing that is
    computed changes. Scales, casts and reshapes keep zeros. What cannot be followed is passed over: a weight combined with
    the input element by element, and kernels that are not torch's.

    In a compiled model, and in one that DataParallel copies, nothing is put on a layer: its own kinds of Linear and Conv are
    tried at once instead, on zeros of the smallest shape that they take.

    Args:
        model: any module.
        targets: the parameters that are to be sparse, by their names in the model.

    Returns:
        What takes the watches off that have not come to their end.

    Raises:
        SparsityError: at the end of that forward pass, if the zeros of a weight were not multiplied with the input.

    Example:
        >>> class Centred(nn.Linear):
        ...     def forward(self, x):
        ...         return nn.functional.linear(x, self.weight - self.weight.mean())
        >>> net = nn.Sequential(nn.Linear(8, 8), Centred(8, 2))
        >>> watches = watch_for_rewriting(net, {"0.weight": net[0].weight, "1.weight": net[1].weight})
        >>> try:
        ...     net(torch.rand(4, 8))
        ... except SparsityError as refusal:
        ...     print(str(refusal)[:51])
        '1.weight' is rewritten by the forward of Centred (
    """
    names = {id(parameter): name for name, parameter in targets.items()}
    owners: dict[str, object] = {}  # the class that owns a target, or the layer, if its forward is of no class
    for module in model.modules():
        kind = module if "forward" in vars(module) else type(module)
        owners |= {names[id(each)]: kind for each in module._parameters.values() if id(each) in names}
    at_once = is_compiled(model) or any(isinstance(module, nn.DataParallel) for module in model.modules())
    taken_off: list[Callable[[], object]] = []
    for module in model.modules():
        if _is_torchs_own(module):
            continue
        read = _attributes_read(module)
        used = {
            path: names.get(id(parameter))
            for path, parameter in module.named_parameters()
            if "." not in path or path.rpartition(".")[2] in read
        }
        paths = used if any(used.values()) else {}
        if paths and at_once:
            _try_alone(module, paths, owners)
        elif paths:
            taken_off.append(_watch_once(module, paths, owners))
    return taken_off


def _is_torchs_own(module: nn.Module) -> bool:
    """Whether torch itself wrote the forward of a module; scripted modules count as such, because they cannot be changed."""
    if isinstance(module, torch.jit.ScriptModule):
        return True
    methods = ("forward", "_conv_forward")
    homes = [kind.__module__ for name in methods for kind in _homes(module, name)]
    return not any(name in vars(module) for name in methods) and all(home.startswith("torch.nn.") for home in homes)


def _homes(module: nn.Module, method: str) -> list[type]:
    """The class that a module has a method from, if it has one."""
    return [kind for kind in type(module).__mro__ if method in vars(kind)][:1]


def _attributes_read(module: nn.Module) -> set[str]:
    """The names that the source of a module's forward mentions."""

    def mentioned(code: CodeType) -> set[str]:
        inner = [mentioned(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
        return set(code.co_names).union(*inner)

    code = getattr(inspect.unwrap(module.forward), "__code__", None)
    return mentioned(code) if code else set()


def _watch_once(
    module: nn.Module, paths: Mapping[str, str | None], owners: Mapping[str, object]
) -> Callable[[], object]:
    """Put a forward in the place of a module's own that watches once and takes itself away; return what does so too."""
    original = vars(module).get("forward")

    @functools.wraps(type(module).forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        call = functools.partial(original) if original else functools.partial(type(self).forward, self)
        if torch.compiler.is_compiling() or not take_off(self):
            return call(*args, **kwargs)
        return _watched(functools.partial(call, *args, **kwargs), self, paths, owners)

    def take_off(self: nn.Module) -> bool:
        if getattr(vars(self).get("forward"), "__func__", None) is not forward:
            return False
        del vars(self)["forward"]
        if original is not None:
            vars(self)["forward"] = original
        return True

    # A method, because the deep copy of a method is bound to the copy of its module.
    vars(module)["forward"] = MethodType(forward, module)
    return lambda: take_off(module)


def _watched(
    call: functools.partial[Any],
    module: nn.Module,
    paths: Mapping[str, str | None],
    owners: Mapping[str, object],
) -> Any:
    """Make a call of a module's forward, and raise a SparsityError if a weight of it turns out to be rewritten."""
    parameters = {path: module.get_parameter(path) for path in paths}
    with _Trace(
        parameters, [path for path, name in paths.items() if name], tree_leaves((call.args, call.keywords))
    ) as trace:
        result = call()
    if trace.rewritten:
        name = paths[trace.rewritten[0]] or ""
        raise SparsityError(_REFUSAL.format(name=name, kind=type(module).__name__, advice=_advice(name, owners)))
    return result


def _try_alone(module: nn.Module, paths: Mapping[str, str | None], owners: Mapping[str, object]) -> None:
    """Watch a copy of a layer at once, on an input made up for it, if its shape is known."""
    if isinstance(module, nn.Linear):
        shape = [1, module.in_features]
    elif isinstance(module, _ConvNd):
        spans = zip(module.kernel_size, module.dilation, strict=True)
        shape = [1, module.in_channels, *(1 + (size - 1) * apart for size, apart in spans)]
    else:
        return
    try:
        with torch.no_grad(), fork_random_states(None):
            alone = copy.deepcopy(module)
            _watched(functools.partial(alone.forward, alone.weight.new_zeros(shape)), alone, paths, owners)
    except SparsityError:
        raise
    except Exception:  # it takes something else
        return


def _advice(name: str, owners: Mapping[str, object]) -> str:
    """What to write: patterns for the weights of all layers of the same class, where they fit no other weight."""
    alike = {other for other, kind in owners.items() if kind is owners[name]}
    if len(alike) == len(owners):
        return "No other weights are left to make sparse: use layers that multiply with their weight as it is"
    patterns: dict[str, None] = {}
    for other in sorted(alike):
        pattern = re.sub(r"(?<![^.])\d+(?![^.])", "*", other)
        fits = {each for each in owners if fnmatchcase(each, pattern)} <= alike
        patterns[pattern if fits else other] = None
    return f"Leave such layers out with exclude={list(patterns)}"


class _Traced(NamedTuple):
    """What a parameter has become: in the forward pass, and where it began as something else."""

    name: str
    value: Tensor  # held, so that its place in memory is not used again
    stand_in: Tensor | None  # made when it is first needed


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follow parameters from operation to operation to where the input meets them, each beside one that stands in for it.

    That of a target is zero in half of its places; the others are zero nowhere, as what begins at zero will not stay there.
    """

    supports_higher_order_operators = True

    def __init__(self, parameters: Mapping[str, Tensor], targets: Iterable[str], inputs: Iterable[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._from_input = {_place(value) for value in inputs if isinstance(value, Tensor)}
        self._traced = {_place(each): _Traced(name, each, None) for name, each in parameters.items()}
        self._sizes = {name: each.numel() for name, each in parameters.items()}
        self._targets = {name: number for number, name in enumerate(targets)}
        self._kept: dict[str, bool] = {}

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let functions that a forward calls be compiled as they would be without this."""
        return True

    @property
    def rewritten(self) -> list[str]:
        """The weights whose zeros met no input."""
        return [name for name, kept in self._kept.items() if not kept]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        places = [_place(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        traced = [self._traced[place] for place in places if place in self._traced]
        plain = isinstance(func, torch._ops.OpOverload)
        from_input = not plain or any(place in self._from_input for place in places)
        instead = None
        if traced and not from_input:
            instead = self._instead(func, args, kwargs)
        elif plain and _KERNELS.fullmatch(func.overloadpacket.__name__):
            for each in traced:
                self._judge(each)
        result = func(*args, **kwargs)
        values = tree_leaves(result)
        others = [None] * len(values) if instead is None else tree_leaves(instead)
        for value, other in zip(values, others, strict=True):
            if not isinstance(value, Tensor):
                continue
            place = _place(value)
            (self._from_input.add if from_input else self._from_input.discard)(place)
            self._traced.pop(place, None)
            if other is not None:
                whole = [each.name for each in traced if self._sizes[each.name] == value.numel()]
                name = min(whole, key=lambda name: name not in self._targets, default=traced[0].name)
                self._traced[place] = _Traced(name, value, other)
        return result

    def _judge(self, each: _Traced) -> None:
        """See whether what meets the input has the zeros of a target; if so, it need not be followed any more."""
        if each.value.numel() != self._sizes[each.name]:
            return
        kept = each.stand_in is None or each.name not in self._targets
        if each.stand_in is not None and not kept:
            # A few more, as a diagonal, are no rewriting; complex numbers are zero only where both of their parts are.
            zeros = each.stand_in.numel() - self._stand_in(each).count_nonzero()
            kept = each.stand_in.is_complex() or bool(
                each.stand_in.numel() - each.stand_in.count_nonzero() >= 0.9 * zeros
            )
        self._kept[each.name] = self._kept.get(each.name, False) or kept
        if kept:
            self._traced = {place: other for place, other in self._traced.items() if other.name != each.name}

    def _stand_in(self, each: _Traced) -> Tensor:
        """About half of a target's places are zero, without a pattern along any dimension, the rest between 0.5 and 1."""
        value, number = each.value, self._targets.get(each.name)
        ramp = (torch.arange(value.numel(), device=value.device) + (number or 0)) * 40503 % 65521 / 65521
        ramp = 0.5 + 0.5 * ramp if number is None else ramp.masked_fill(ramp < 0.5, 0.0)
        return ramp.to(value.dtype).view(value.shape)

    def _instead(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What an operation gives for the stand-ins; None where that cannot be told."""
        arguments = func._schema.arguments
        writes = {each.name for each in arguments if each.alias_info and each.alias_info.is_write}

        def replaced(value: Any, written: bool) -> Any:
            if not isinstance(value, Tensor):
                return value
            place = _place(value)
            each = self._traced.get(place)
            if each is None:
                return value.clone() if written else value
            if each.stand_in is None:
                each = self._traced[place] = each._replace(stand_in=self._stand_in(each))
            return each.stand_in

        by_name = dict(zip([each.name for each in arguments], args, strict=False)) | kwargs
        given = {n: tree_map(functools.partial(replaced, written=n in writes), value) for n, value in by_name.items()}
        try:
            draws = torch.Tag.nondeterministic_seeded in func.tags
            with torch.no_grad(), fork_random_states(None) if draws else nullcontext():
                return func(**given)
        except Exception:  # an inverse, say, that zeros do not have
            return None


def _place(tensor: Tensor) -> Any:
    """What tells a tensor from others that are alive, whichever object in Python stands for it."""
    try:
        return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
    except RuntimeError:  # sparse, or without memory of its own
        return id(tensor)
