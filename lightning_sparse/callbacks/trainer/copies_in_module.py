"""Copies of the weights that are kept in the module itself: a moving average, a momentum teacher, a target network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_sparse.anatomy.parameters import Targets

# Nothing trains what is in these (torch's, timm's), even if an optimizer was given all of module.parameters().
_AVERAGING = ("AveragedModel", "ModelEma", "ModelEmaV2", "ModelEmaV3")
# Where torch keeps what it knows of a module; anything else in its vars() is the user's.
_TORCHS = ("_modules", "_parameters", "_buffers")
# The least cosine between weights and their copy. Of two networks that were made independently it is near 0.
_ALIKE = 0.3


def trained_in(module: nn.Module, optimizers: Iterable[Optimizer]) -> set[int]:
    """The ids of the parameters that some optimizer trains."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    given = {id(parameter) for group in groups for parameter in group["params"] if parameter.requires_grad}
    averages = [each for each in module.modules() if any(kind.__name__ in _AVERAGING for kind in type(each).__mro__)]
    return given - {id(parameter) for average in averages for parameter in average.parameters()}


def without_copies(targets: Targets, module: nn.Module, optimizers: Iterable[Optimizer]) -> Targets:
    """Leave out the parameters of copies in the module, which are masked as averages; the targets are changed in place."""
    trained = trained_in(module, optimizers)
    copied = CopiesInModule(module, {n: p for n, p in targets.items() if id(p) in trained}).find(trained)
    modules = [copy for copy, _ in copied if isinstance(copy, nn.Module)]
    gone = {id(parameter) for copy in modules for parameter in copy.parameters()}
    for name in [name for name, parameter in targets.items() if id(parameter) in gone]:
        del targets[name]
    return targets


class CopiesInModule:
    """Find modules, and dictionaries of tensors, that copy weights of the module that holds them.

    They may be submodules, or hidden from torch in an attribute or in a list, tuple or dictionary. A copy has, under some
    prefix (``net.0.weight`` is ``0.weight`` in a copy of ``net``), the names and shapes of all the weights there, is trained
    by no optimizer, and has been closer to them than chance once: another network of the same shape is no copy.

    Args:
        module: where to look.
        weights: the weights that may have been copied, by name.
    """

    def __init__(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self._module, self._weights = module, dict(weights)
        self._under: dict[str, list[str]] = {}
        for name in weights:
            parts = name.split(".")
            for depth in range(len(parts)):
                self._under.setdefault("".join(f"{part}." for part in parts[:depth]), []).append(name)
        self._known: dict[int, str] = {}

    def find(self, trained: set[int]) -> list[tuple[Any, dict[str, Tensor]]]:
        """Return each copy and its tensors, by the name of the weight that each of them copies.

        Args:
            trained: the ids of the parameters that optimizers train.
        """
        mine = {id(weight) for weight in self._weights.values()}
        return list(self._walk(self._module, trained | mine, {id(self._module)}))

    def _walk(self, holder: Any, no_copies: set[int], seen: set[int]) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        tensors = tensors_of(holder)
        if tensors and not any(id(tensor) in no_copies for tensor in tensors.values()):
            copied = self._copied_by(holder, tensors)
            if copied:
                yield holder, copied
                return
        for inside in _inside(holder):
            if id(inside) not in seen:
                seen.add(id(inside))
                yield from self._walk(inside, no_copies, seen)

    def _copied_by(self, holder: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        fitting = {}
        for prefix, names in self._under.items():
            inside = {name: tensors[short] for name in names if (short := name.removeprefix(prefix)) in tensors}
            if len(inside) == len(names) and all(inside[name].shape == self._weights[name].shape for name in names):
                fitting[prefix] = inside
        if self._known.get(id(holder)) not in fitting:
            alike = {prefix: self._likeness(inside) for prefix, inside in fitting.items()}
            closest = max(alike, key=alike.__getitem__, default="")
            if alike.get(closest, 0.0) < _ALIKE:
                return {}
            self._known[id(holder)] = closest
        return fitting[self._known[id(holder)]]

    @torch.no_grad()
    def _likeness(self, copy: Mapping[str, Tensor]) -> float:
        """The cosine between the living weights and their copies: 1 when it is made, near 0 for another network."""
        product = mine = other = 0.0
        for name, tensor in copy.items():
            weight = self._weights[name].float()
            theirs = tensor.to(weight).masked_fill(weight == 0, 0.0)
            product += float((weight * theirs).sum())
            mine, other = mine + float(weight.square().sum()), other + float(theirs.square().sum())
        return product / ((mine * other) ** 0.5 or 1.0)


def tensors_of(value: Any) -> dict[str, Tensor]:
    """The parameters of a module, or the tensors that a dictionary has by name; nothing for anything else."""
    named = dict(value.named_parameters()) if isinstance(value, nn.Module) else value
    tensors = named.items() if isinstance(named, dict) else ()
    return {
        name: tensor
        for name, tensor in tensors
        if isinstance(name, str) and isinstance(tensor, Tensor) and tensor.is_floating_point()
    }


def _inside(holder: Any) -> Iterator[Any]:
    """The modules and dictionaries that a module holds, one by one or in a list, tuple or dictionary."""
    if not isinstance(holder, nn.Module):
        return
    yield from holder.children()
    for name, value in vars(holder).items():
        if name in _TORCHS:
            continue
        if isinstance(value, nn.Module) or (isinstance(value, dict) and value):  # torch keeps a dozen empty ones
            yield value
        if isinstance(value, list | tuple | dict):
            several = value.values() if isinstance(value, dict) else value
            yield from (each for each in several if isinstance(each, nn.Module))
