"""The group ``compression``: whether a job compresses what it has trained, and by which steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from lightning_sparse.compress.steps.step import Step


def is_compressed(config: Mapping[Any, Any]) -> bool:
    """Whether there is any step.

    Example:
        >>> is_compressed({"compression": {"steps": []}}), is_compressed({})
        (False, False)
    """
    return bool(config.get("compression", {}).get("steps"))


def is_narrow(config: Mapping[Any, Any]) -> bool:
    """Whether the network is built narrower before it is trained."""
    return is_compressed(config) and bool(config["compression"].get("narrow"))


def steps_of(config: Mapping[Any, Any], narrow: Callable[[float], nn.Module], width: float | None = None) -> list[Step]:
    """The steps of a compression.

    Args:
        config: the configuration.
        narrow: makes the network of a width, for ``compression=narrow`` alone.
        width: of that network; None is to be found.

    Raises:
        SparsityError: if an argument of a step is out of range, or the steps, or ``bits``, do not go together.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from lightning_sparse.compress.steps.narrow import Narrow
    from lightning_sparse.compress.steps.order import check_steps
    from lightning_sparse.errors import SparsityError

    try:
        steps = [instantiate(step, _convert_="all") for step in config["compression"]["steps"]]
    except InstantiationException as error:
        raise SparsityError(f"compression.steps cannot be built: {error.__cause__ or error}") from error
    bits = config.get("bits")
    if is_narrow(config):
        return check_steps([Narrow(narrow, width), *steps], bits if width is None else None)
    return check_steps(steps, bits)
