"""Scores of weights by what they are multiplied with, and compared within each output."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sparse.anatomy.layer_inputs import as_matrix, as_weight
from lightning_sparse.anatomy.parameters import inputs_first
from lightning_sparse.engine.scores.calibration import input_sums
from lightning_sparse.engine.scores.of_network import Network, of_network


@of_network
def wanda(network: Network) -> dict[str, Tensor]:
    """``|w|`` times the L2 norm of its input, ranked within its output: Sun et al. 2023, Wanda (arXiv 2306.11695).

    The norm is over all tokens or positions of the batches, in eval mode; the input of a convolution's weight is a channel
    seen through one place of the kernel. The score is the share of the output's weights that are worth less, so that under
    one ranking of the network each output of each layer loses the same share, to within one connection. One forward pass a
    batch, no gradients; of the inputs only the norms are kept.

    Example:
        >>> net = torch.nn.Linear(2, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 2.0], [3.0, 1.0]]))
        >>> batch = torch.tensor([[3.0, 0.0], [0.0, 6.0]])  # norms 3 and 6
        >>> look = Network(net, dict(net.named_parameters()), [batch], lambda net, x: net(x).sum())
        >>> wanda(look)["weight"].tolist()  # 9 and 12, 9 and 6
        [[0.25, 0.75], [0.75, 0.25]]
    """
    sums = input_sums(network, lambda inputs: inputs.square().sum(0), "the score 'wanda'")
    turned = inputs_first(network.parameters)
    norms: dict[str, Tensor] = {}
    for (name, first, last), squares in sums.items():
        weight = as_matrix(network.parameters[name].detach(), name in turned)
        norms.setdefault(name, squares.new_zeros(weight.shape))[first:last] += squares
    return {
        name: within_outputs(weight.detach(), norms[name].sqrt(), name in turned)
        for name, weight in network.parameters.items()
    }


@of_network
def obs(network: Network) -> dict[str, Tensor]:
    """By which optimal brain surgery shares connections between layers: equally, as Wanda; in each it chooses by itself.

    What it chooses by: ``engine/reconstruction.py``.

    Example:
        >>> net = torch.nn.Linear(2, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 2.0], [3.0, 5.0]]))
        >>> obs(Network(net, dict(net.named_parameters()), [], lambda net, x: net(x).sum()))["weight"].tolist()
        [[0.75, 0.25], [0.25, 0.75]]
    """
    turned = inputs_first(network.parameters)
    alike = torch.ones(1)
    return {
        name: within_outputs(weight.detach(), alike.to(weight), name in turned)
        for name, weight in network.parameters.items()
    }


def within_outputs(weight: Tensor, norms: Tensor, turned: bool) -> Tensor:
    """The rank of ``|w| * norms`` among the weights of the same output, in (0, 1); zeros come first, then earlier positions.

    Example:
        >>> within_outputs(torch.tensor([[0.5, -2.0, 0.0, 1.0]]), torch.ones(1, 4), False).tolist()
        [[0.375, 0.875, 0.125, 0.625]]
    """
    matrix = as_matrix(weight, turned)
    worth = (matrix.abs() * norms).masked_fill(matrix == 0, -1.0)
    ranks = (worth.argsort(dim=1, stable=True).argsort(1) + 0.5) / matrix.shape[1]
    return as_weight(ranks.masked_fill(worth.isnan(), torch.nan), weight.shape, turned)
