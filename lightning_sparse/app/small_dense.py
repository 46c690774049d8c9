"""The control ``small_dense``: the width at which a dense network has as many weights as a sparse one has left."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from lightning_sparse.anatomy.isolation import fork_random_states
from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.compress.bits import found_at
from lightning_sparse.compress.draft import Draft
from lightning_sparse.compress.state import numbers_of
from lightning_sparse.compress.steps.code import Code
from lightning_sparse.compress.steps.narrow import Narrow
from lightning_sparse.errors import SparsityError, check_count, check_share


def width_of(config: DictConfig) -> float:
    """The ``width`` at which ``model.net`` has as many weights as the sparse network that it is compared with.

    Raises:
        SparsityError: if ``sparsity.final_sparsity`` is not in [0, 1), ``model.net`` takes no ``width``, or the smallest such
            network has more weights. Errors of ``model.net`` without a width are raised as they are.
    """
    share = check_share("final_sparsity", config.sparsity.final_sparsity, one_allowed=False)
    missing = "model.net is missing"
    if "net" in config.model:
        weights = round((1.0 - share) * _count(lambda: _net(config)))
        try:
            return small_width(lambda width: _net(config, width=width), weights)
        except SparsityError:
            raise
        except Exception as error:
            missing = str(error)
    raise SparsityError(
        "sparsity=small_dense needs a network that can be made narrower: give model.net a _target_ that takes width= "
        f"(a factor of its hidden sizes, 1 by default), or leave this control out ({missing})"
    )


def width_of_bits(make: Callable[[float], nn.Module], bits: float) -> float:
    """The largest width at which a network at 16 bits a number, coded, takes no more than ``bits`` of the full one.

    Args:
        make: ``make(width)`` builds the network; 1.0 is its full width.
        bits: a share in (0, 1) of the full network in float32.

    Raises:
        SparsityError: if the network takes no ``width``; an OutOfReachError, if the narrowest takes more bits.
    """
    with fork_random_states(0):  # bytes depend a little on the values: a training that goes on must find the same width
        try:
            full = make(1.0)
        except Exception as error:
            raise SparsityError(
                "compression=narrow needs a network that can be made narrower: give model.net a _target_ that takes width= "
                f"(a factor of its hidden sizes, 1 by default), or leave it out ({error})"
            ) from error
        found = found_at(bits, Narrow(make), [Code()], Draft(full), numbers_of(full))
    assert isinstance(found, Narrow)
    assert found.width is not None
    return found.width


def sparsity_of_small(config: DictConfig, model: nn.Module) -> float:
    """The share of the full network's weights that a small dense one lacks."""
    return 1.0 - _weights(model) / _count(lambda: _net(config))


def small_width(make: Callable[[float], nn.Module], weights: int) -> float:
    """Find, by bisection, the width at which a network has about this many sparsifiable weights.

    Args:
        make: ``make(width)`` builds the network, larger for a larger width: ``lambda width: small_cnn(shape, 10, width)``.
        weights: the number of weights, as :func:`~lightning_sparse.sparsifiable` counts them.

    Returns:
        The width whose number of weights is nearest, and the smaller of two that are equally near. Units are whole, so a
        narrow network may be some percent off: count its weights.

    Raises:
        SparsityError: if even the smallest network has more weights, or ``make`` ignores the width.

    Example:
        >>> from lightning_sparse.models import lenet_300_100
        >>> width = small_width(lambda width: lenet_300_100((1, 28, 28), 10, width), 26_620)
        >>> width, sum(weight.numel() for weight in sparsifiable(lenet_300_100((1, 28, 28), 10, width)).values())
        (0.11, 26345)
    """

    def count(width: float) -> int:
        return _count(lambda: make(width))

    check_count("weights", weights, write="how many the sparse model has left")
    below, above = 1e-9, 1.0
    if count(below) > weights:
        raise SparsityError(
            f"weights={weights} is fewer than the smallest such model has ({count(below)}), so there is no dense control of "
            "this size: ask for a lower sparsity, or leave the control out"
        )
    while count(above) < weights:
        if above > 1e6:
            raise SparsityError(f"make gives {count(above)} weights at any width: let it use its argument")
        below, above = above, 2 * above
    # `below` has fewer weights, `above` as many or more; they close in on one step of the count.
    while above - below > 1e-9 * above:
        middle = (below + above) / 2
        below, above = (middle, above) if count(middle) < weights else (below, middle)
    width = below if weights - count(below) <= count(above) - weights else above
    # The shortest number that gives the same network: rounded away from the step, down from `below`, up from `above`.
    rounded = math.floor if width == below else math.ceil
    short = (rounded(width * 10**digits) / 10**digits for digits in range(1, 10))
    return next((number for number in short if number > 0 and count(number) == count(width)), width)


def _net(config: DictConfig, **width: float) -> nn.Module:
    net: nn.Module = instantiate(config.model.net, _convert_="all", **width)
    return net


def _count(make: Callable[[], nn.Module]) -> int:
    # Takes no memory, and no random number from the network that is trained.
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _weights(make())


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in sparsifiable(module).values())
