"""Look at a model and leave no trace: in it, in the random states, or in the autograd mode."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.anatomy.tensor_parts import tensor_parts
from lightning_sparse.errors import check_seed


@contextmanager
def untouched(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Measure ``model`` inside this context; whatever happens inside, it leaves no trace outside.

    Inside: every submodule is in eval mode, parameters require no gradient (attacks and attributions need gradients of the
    input only), gradients of inputs work even under Lightning's ``inference_mode``, autocast is off, and the random states
    of torch, numpy and ``random`` start from ``seed``.

    Afterwards, also after an exception: each submodule's own training flag (a frozen BatchNorm stays frozen), each
    parameter's ``requires_grad`` and ``grad``, all buffers, and all random states are as before.

    Args:
        model: the model, or a module that contains it.
        seed: seed of the random states inside, an integer from 0 to 2**32 - 1; None is 0.

    Raises:
        SparsityError: if ``model`` is not a module, or ``seed`` not such an integer.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
        >>> _ = model[1].eval()
        >>> with untouched(model):
        ...     print([module.training for module in model])
        [False, False]
        >>> [module.training for module in model]
        [True, False]
    """
    check_module(model)
    with as_it_was(model, check_seed(seed)):
        model.eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        yield


@contextmanager
def as_it_was(model: nn.Module, seed: int | None = None) -> Iterator[None]:
    """Score ``model`` inside this context in its own modes, with gradients; it leaves no trace outside.

    Like :func:`untouched`, but modules keep their modes and parameters their ``requires_grad``, and without a seed random
    numbers go on from where they are. The state of torchmetrics modules is restored too.

    Example:
        >>> model = torch.nn.BatchNorm1d(2)
        >>> with as_it_was(model):
        ...     model(torch.randn(8, 2)).sum().backward()
        >>> model.weight.grad is None, int(model.num_batches_tracked)
        (True, 0)
    """
    with ExitStack() as stack:
        # First: under inference_mode, requires_grad cannot be changed and enable_grad alone has no effect.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", device_of(model).type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(fork_random_states(seed))
        stack.enter_context(_model_state(model))
        for parameter in model.parameters():
            parameter.grad = None  # otherwise a backward pass inside would add to it
        yield


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter, else of its first buffer, else the CPU.

    Example:
        >>> device_of(torch.nn.Flatten())
        device(type='cpu')
    """
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


@contextmanager
def fork_random_states(seed: int | None) -> Iterator[None]:
    """Draw from the global random states of torch, numpy and ``random``, which go on afterwards as if nothing had been drawn.

    Inside they start from ``seed``; None goes on from where they are.

    Example:
        >>> before = torch.get_rng_state()
        >>> with fork_random_states(0):
        ...     _ = torch.rand(3)
        >>> bool((torch.get_rng_state() == before).all())
        True
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    cuda_in_use = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if cuda_in_use else []
    try:
        # All devices, because torch.manual_seed (which attacks call) seeds all of them.
        with torch.random.fork_rng(devices=devices):
            if seed is not None:
                torch.manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if torch.cuda.is_available() and not cuda_in_use:
            # A seed set before CUDA is initialised is kept until then: leave the caller's there, not ours.
            torch.cuda.manual_seed_all(torch.initial_seed())


@contextmanager
def _model_state(model: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    buffers = [
        (module, name, buffer, [(part, part.clone()) for part in tensor_parts(buffer)])
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    metrics = [(module, _metric_state(module)) for module in model.modules()]
    try:
        yield
    finally:
        for module, state in metrics:
            vars(module).update(state)
        for module, training in flags:
            module.training = training  # one by one: module.train() would switch its children too
        for parameter, required, gradient in gradients:
            parameter.requires_grad_(required)
            parameter.grad = gradient
        for module, name, buffer, parts in buffers:
            module._buffers[name] = buffer
            for part, saved in parts:
                if not torch.equal(part, saved):
                    with torch.no_grad():
                        part.copy_(saved)


def _metric_state(module: nn.Module) -> dict[str, object]:
    """The state of a torchmetrics module, which is not in its buffers, and is updated in place."""
    if not hasattr(module, "_update_count"):
        return {}
    names = (*getattr(module, "_defaults", ()), "_update_count", "_computed")
    return {name: copy.deepcopy(vars(module)[name]) for name in names if name in vars(module)}
