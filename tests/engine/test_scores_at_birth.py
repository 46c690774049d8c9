"""Masks at birth by scores of the whole network, against a rewrite."""

import numpy as np
import pytest
import torch

from engine.small_network import NAMES, SHAPES, TOTAL, arrays, batches, loss_fn, network
from lightning_sparse import (
    SNIP,
    GraSP,
    SynFlow,
    attach,
)


def slopes(net, weights, x, of_output):
    """Derivatives by each weight of what has the derivative ``of_output(output)`` by the output."""
    biases = [net[i].bias.detach().double().numpy() if of_output is not synaptic else 0.0 for i in (0, 2, 4)]
    one = np.tanh(x @ weights[0].T + biases[0])
    two = np.tanh(one @ weights[1].T + biases[1])
    third = of_output(two @ weights[2].T + biases[2])
    second = third @ weights[2] * (1 - two**2)
    first = second @ weights[1] * (1 - one**2)
    return [first.T @ x, second.T @ one, third.T @ two]


def synaptic(output):
    return np.ones_like(output)


def mean_gradient(net, weights, data):
    def cross_entropy(labels):
        def slope(output):
            exponentials = np.exp(output - output.max(1, keepdims=True))
            return (exponentials / exponentials.sum(1, keepdims=True) - np.eye(5)[labels]) / len(labels)

        return slope

    parts = [slopes(net, weights, x.double().numpy(), cross_entropy(y.numpy())) for x, y in data]
    return [sum(layers) / len(parts) for layers in zip(*parts, strict=True)]


def by_sensitivity(net, weights, data):
    """SNIP: ``|w dL/dw|``."""
    return [np.abs(w * g) for w, g in zip(weights, mean_gradient(net, weights, data), strict=True)]


def by_gradient_flow(net, weights, data):
    """GraSP: ``w (H g)``, the Hessian's product as the central difference of the gradient along itself."""
    along = mean_gradient(net, weights, data)
    there, here = (
        mean_gradient(net, [w + 1e-5 * side * g for w, g in zip(weights, along, strict=True)], data) for side in (1, -1)
    )
    return [w * (a - b) / 2e-5 for w, a, b in zip(weights, there, here, strict=True)]


def by_synaptic_flow(net, weights, data):
    """SynFlow: ``|w dR/dw|`` for an input of ones under absolute weights, without biases."""
    positive = [np.abs(w) for w in weights]
    return [w * g for w, g in zip(positive, slopes(net, positive, np.ones((1, 12)), synaptic), strict=True)]


BIRTHS = {
    "SNIP": (lambda: SNIP(0.9, score_batches=2), by_sensitivity, 1),
    "SNIP in rounds": (lambda: SNIP(0.9, rounds=7), by_sensitivity, 7),
    "GraSP": (lambda: GraSP(0.8, score_batches=3), by_gradient_flow, 1),
    "SynFlow": (lambda: SynFlow(0.9), by_synaptic_flow, 100),
}


@pytest.mark.parametrize("name", BIRTHS)
def test_masks_at_birth_are_those_of_a_rewrite(name):
    make, score, rounds = BIRTHS[name]
    method, net, data = make(), network(), list(batches(5))
    weights = [net.get_parameter(name).detach().double().numpy().copy() for name in NAMES]
    masks, asked = [np.ones(shape, bool) for shape in SHAPES], TOTAL - round(method.recipe.sparsity(0) * TOTAL)
    for done in range(1, rounds + 1):
        count = asked if done == rounds else round(TOTAL * (asked / TOTAL) ** (done / rounds))
        weights = [np.where(m, w, 0.0) for w, m in zip(weights, masks, strict=True)]
        scores = score(net, weights, data[: method.recipe.score_batches])
        places = [(scores[i].ravel()[p], i, p) for i, mask in enumerate(masks) for p in np.flatnonzero(mask)]
        for _, layer, place in sorted(places)[: len(places) - count]:
            masks[layer].ravel()[place] = False
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    engine = attach(optimizer, net, method, batches=data, loss_fn=loss_fn)
    assert all(map(np.array_equal, arrays(engine.masks.values()), masks))
    assert engine.masks.living == asked
