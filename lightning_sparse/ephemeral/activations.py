"""Put selections on a model's layers, in a Trainer or outside of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.utils.hooks import RemovableHandle

from lightning_sparse.anatomy.layer_calls import is_compiled
from lightning_sparse.anatomy.layers import is_layer
from lightning_sparse.anatomy.patterns import matching
from lightning_sparse.engine.checkpoints import read_checkpoint
from lightning_sparse.ephemeral.selection import RULES, Selection
from lightning_sparse.errors import SparsityError

STATE = "ActivationSparsity"
"""What the key of a callback's state in a checkpoint begins with."""


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Every Linear and Conv layer, by the name of its weight, which has no part that ``torch.compile`` has added."""
    return {
        f"{path}.weight".removeprefix(".").replace("_orig_mod.", ""): layer
        for path, layer in model.named_modules()
        if is_layer(layer)
    }


def consumers(
    model: nn.Module, include: Sequence[str] | None = None, exclude: Sequence[str] | None = None
) -> dict[str, nn.Module]:
    """Find the layers that read activations, by the names of their weights.

    Args:
        model: any module.
        include: shell-style patterns of the weights' names; None takes every Linear and Conv layer but the first, which reads
            the data. The first is the one that the model has first, in the order of ``model.modules()``.
        exclude: patterns to leave out.

    Example:
        >>> list(consumers(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))))
        ['2.weight']
    """
    layers = layers_of(model)
    names = {name: name for name in layers}
    chosen = list(layers)[1:] if include is None else matching("include", include, names)
    left_out = matching("exclude", exclude, names) if exclude else []
    found = {name: layers[name] for name in chosen if name not in left_out}
    if not found:
        raise SparsityError(
            f"{type(model).__name__} has no second layer whose input could be made sparse: name the layers with "
            "include=['*fc1.weight']"
        )
    return found


def install(layers: Mapping[str, nn.Module], selections: Mapping[str, Selection]) -> list[RemovableHandle]:
    """Hook selections to layers of the same names."""
    return [layers[name].register_forward_pre_hook(selection) for name, selection in selections.items()]


def uninstall(model: nn.Module) -> list[tuple[nn.Module, dict[int, Any]]]:
    """Take all selections off a model's layers; return what was there, for :func:`reinstall`.

    A graph that is compiled does not notice hooks that come or go: those of this process are forgotten, and compiled again.
    """
    if is_compiled(model):
        torch._dynamo.reset()
    before = []
    for module in model.modules():
        mine = {key: hook for key, hook in module._forward_pre_hooks.items() if isinstance(hook, Selection)}
        for key in mine:
            del module._forward_pre_hooks[key]
        before += [(module, mine)] if mine else []
    return before


def reinstall(before: Sequence[tuple[nn.Module, Mapping[int, Any]]]) -> None:
    """Put back what :func:`uninstall` took off."""
    for module, hooks in before:
        module._forward_pre_hooks.update(hooks)


def state_of(source: Any) -> dict[str, Any] | None:
    """The state of the ActivationSparsity in a checkpoint (a path or its content) or of a callback; None if there is none."""
    if isinstance(source, str | Path):
        source = read_checkpoint(source)
    if isinstance(source, Mapping):
        callbacks = source.get("callbacks", {})
        states = [state for key, state in callbacks.items() if str(key).startswith(STATE)]
    else:
        states = [source.state_dict()] if hasattr(source, "state_dict") and hasattr(source, "selections") else []
    state = states[0] if states else None
    if not state:
        return None
    if not isinstance(state, Mapping) or state.get("rule") not in RULES or not isinstance(state.get("layers"), Mapping):
        raise SparsityError("the state of ActivationSparsity is damaged: take another checkpoint")
    return dict(state)


def restored(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Selection]:
    """Install the selections of a state on a model, in place of those that it has."""
    own, states = layers_of(model), state["layers"]
    if missing := sorted(states.keys() - own.keys()):
        raise SparsityError(
            f"{type(model).__name__} has no {missing[0]!r}, whose inputs were made sparse: give the model that was trained"
        )
    found = {}
    for name, kept in states.items():
        found[name] = Selection(own[name], state["rule"], state["period"])
        if kept["mean"].shape != found[name].mean.shape:
            raise SparsityError(f"{name!r} reads {len(found[name].mean)} units, and {len(kept['mean'])} were trained")
        found[name].load_state_dict(kept)
    uninstall(model)
    install(own, found)
    return found


@contextmanager
def activations_of(source: Any, model: nn.Module) -> Iterator[nn.Module]:
    """Give a model the activations that it was trained with: a checkpoint's weights alone compute another function.

    Args:
        source: a checkpoint, by its path or as ``torch.load`` returned it; an
            :class:`~lightning_sparse.ActivationSparsity` that has trained; or None, for the function without any selection.
        model: the module that was trained, on any device.

    Raises:
        SparsityError: if no :class:`~lightning_sparse.ActivationSparsity` is in ``source``, or the model is another one.

    Example:
        >>> from lightning_sparse import ActivationSparsity
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> with activations_of(None, net):
        ...     _ = net(torch.rand(1, 4))
        >>> with activations_of(ActivationSparsity(0.5), net):
        ...     _ = net(torch.rand(1, 4))
        Traceback (most recent call last):
        lightning_sparse.SparsityError: source has trained no activations: give the checkpoint of a training with \
ActivationSparsity, or the callback after its fit
    """
    state = None if source is None else state_of(source)
    if source is not None and state is None:
        raise SparsityError(
            "source has trained no activations: give the checkpoint of a training with ActivationSparsity, or the callback "
            "after its fit"
        )
    before = uninstall(model)
    try:
        if state is not None:
            restored(model, state)
        yield model
    finally:
        uninstall(model)
        reinstall(before)


def refuse_lazy(model: nn.Module) -> None:
    """Refuse layers that do not know yet how many inputs they have."""
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise SparsityError(
                f"{name!r} has no shape yet, so its inputs cannot be counted: call model(images) once before the fit"
            )
