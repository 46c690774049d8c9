"""Units and layers cut off from the input or from the output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_sparse.anatomy.layers import is_conv1d, outputs_and_inputs


def dead_units(
    model: nn.Module, masks: Mapping[str, Tensor], chains: Iterable[Sequence[str]] = ()
) -> dict[str, Tensor]:
    """Return which units carry nothing: their output is the same for every input, or nothing reads it.

    In any layer, a unit (a row of dimension 0, a channel of a convolution, a column of a Conv1D) without a living incoming
    connection is dead. In a chain of layers, where each feeds only the next, the units alive are those on a path of living
    connections from one end of the chain to the other. Residual and branching networks have such chains at most inside their
    branches; elsewhere only missing incoming connections can be known, so that the count is a lower bound.

    Biases are ignored. All inputs of a chain's first layer count as alive, and all outputs of its last count as read.

    Args:
        model: the model of the masks.
        masks: boolean masks by parameter name; a layer of a chain without one is dense. Masks of one dimension, which have
            no units, are left out.
        chains: names of weights in order, as in :class:`~lightning_sparse.anatomy.layer_order.LayerOrder`.

    Returns:
        By name in ``masks`` and ``chains`` a boolean tensor, one entry a unit, True where it is dead.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> first = torch.tensor([[1, 0], [0, 0], [1, 1]]).bool()  # the second unit has no input
        >>> last = torch.tensor([[1, 0, 0], [0, 1, 0]]).bool()  # nothing reads the third, and the second reads the dead one
        >>> dead = dead_units(net, {"0.weight": first, "2.weight": last}, [("0.weight", "2.weight")])
        >>> dead["0.weight"].tolist(), dead["2.weight"].tolist()
        ([False, True, True], [False, True])
    """
    names = dict.fromkeys([name for name, mask in masks.items() if mask.dim() > 1])
    names |= dict.fromkeys(name for chain in chains for name in chain)
    device = next((mask.device for mask in masks.values()), None)
    links = {name: _links(model, name, masks.get(name), device) for name in names}
    for chain in chains:
        for source, reader in pairwise(chain):  # from the front: what can be reached
            living = _any(links[source], 1)
            links[reader] &= living.repeat_interleave(links[reader].shape[1] // len(living))
        for source, reader in reversed(list(pairwise(chain))):  # from the back: what is read
            links[source] &= _any(_any(links[reader], 0).view(len(links[source]), -1), 1)[:, None]
    return {name: ~_any(link, 1) for name, link in links.items()}


def cut_off_warnings(dead: Mapping[str, Tensor], outputs: Iterable[str] = ()) -> dict[str, str]:
    """Return warnings for the user, by name of the layer, from what :func:`dead_units` gave.

    Sparse training always leaves some hidden units dead. But a layer whose units are all dead, or an output that is the same
    for every input (a class that only its bias can predict), is hardly ever intended. ``outputs`` names the layers whose
    output goes into the loss.

    Example:
        >>> layer, head = torch.tensor([True, True]), torch.tensor([False, True, False])
        >>> list(cut_off_warnings({"hidden": layer, "head": head}, outputs=["head"]))
        ['hidden', 'head']
    """
    found = {}
    for name, units in dead.items():
        gone = units.nonzero().flatten().tolist()
        if len(gone) == len(units):
            what = f"nothing flows through {name!r} any more: no chain of living connections leads through it"
        elif gone and name in set(outputs):
            which = ", ".join(map(str, gone[:10])) + (", ..." if len(gone) > 10 else "")
            what = (
                f"{len(gone)} of the {len(units)} outputs of {name!r} are the same for every input: no chain of living "
                f"connections leads to them (units {which})"
            )
        else:
            continue
        found[name] = (
            f"{what}. Give the layers other shares (allocation='erk' or 'uniform'), or leave it out with exclude"
        )
    return found


def _links(model: nn.Module, name: str, mask: Tensor | None, device: torch.device | None) -> Tensor:
    """Which input unit is connected to which output unit: boolean, shape (outputs, inputs), in memory of its own."""
    path, _, leaf = name.rpartition(".")
    module: Any = model.get_submodule(path)
    conv = isinstance(module, _ConvNd) and leaf == "weight"
    if mask is None:
        return torch.ones(outputs_and_inputs(module), dtype=torch.bool, device=device)
    link = _any(mask.flatten(2), 2) if mask.dim() > 2 else mask
    if not conv:
        return (link.mT if is_conv1d(module) and leaf == "weight" else link).clone(
            memory_format=torch.contiguous_format
        )
    # Stored as (outputs, inputs of a group), or transposed as (inputs, outputs of a group): one block for each group.
    blocks = link.view(module.groups, -1, link.shape[1])
    blocks = blocks.mT if module.transposed else blocks
    groups, out, into = blocks.shape
    whole = torch.zeros(groups, out, groups, into, dtype=torch.bool, device=mask.device)
    diagonal = torch.arange(groups, device=mask.device)
    whole[diagonal, :, diagonal] = blocks
    return whole.view(groups * out, groups * into)


def _any(mask: Tensor, dimension: int) -> Tensor:
    return mask.view(torch.uint8).amax(dimension).view(torch.bool)  # sixty times faster than `any` on a CPU
