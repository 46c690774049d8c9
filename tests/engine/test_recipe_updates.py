"""Every method against a rewrite in numpy of the rule that its docstring states, in a real training loop.

Weights and dense gradients are read beside the engine: the gradients before the optimizer's step, the weights as that step
has left them, before the engine has seen either.
"""

from fractions import Fraction
from math import cos, floor, pi

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from engine.small_network import NAMES, SHAPES, TOTAL, arrays, batches, loss_fn, network
from lightning_sparse import (
    ACDC,
    SET,
    SNFS,
    BrainDevelopment,
    DenseSparseDense,
    GradualPruning,
    GraNet,
    GrowAndPrune,
    IterativePruning,
    LotteryTicket,
    OneShot,
    RigL,
    Static,
    attach,
)


class Numpy:
    """One method, rewritten: ``masks``, and what ``weights`` become, given what a step has left and what it was given.

    Args:
        update: the rule, ``update(self, step)``, or None from it where no update is due.
    """

    def __init__(self, weights, update):
        self.update = update
        self.weights = weights
        self.masks = [np.ones(shape, bool) for shape in SHAPES]
        self.gradients = None
        self.momentum = [np.zeros(shape) for shape in SHAPES]
        self.updates = 0
        self.after_step(0)

    def after_step(self, step):
        self.weights = [np.where(m, w, 0.0) for w, m in zip(self.weights, self.masks, strict=True)]
        before, after = self.masks, self.update(self, step)
        if after is not None:
            # A newborn starts at zero: its weight was made zero above, while it was dead.
            self.masks, self.updates = after, self.updates + 1
            self.weights = [np.where(m, w, 0.0) for w, m in zip(self.weights, after, strict=True)]
            self.died = sum(int((b & ~a).sum()) for a, b in zip(after, before, strict=True))
            self.born = sum(int((a & ~b).sum()) for a, b in zip(after, before, strict=True))

    def size(self, layer=None):
        masks = self.masks if layer is None else [self.masks[layer]]
        return int(sum(mask.sum() for mask in masks))


def order(scores, among, sign):
    """Positions of a layer by score, earlier positions first of equal ones, of those that ``among`` marks."""
    positions = np.flatnonzero(among)
    return positions[np.lexsort((positions, sign * scores.ravel()[positions]))]


def flip(mask, positions, value):
    mask = mask.copy()
    mask.ravel()[positions] = value
    return mask


def weakest(weights, mask, count):
    return order(np.abs(weights), mask, 1)[:count]


def cubic(step, begin, end, initial, final):
    """Zhu & Gupta 2017, equation 1: s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3 between t_0 and t_0 + n dt."""
    past = min(max(step - begin, 0), end - begin)
    return final + (initial - final) * (1 - past / (end - begin)) ** 3


def cosine(step, first, until):
    """Evci et al. 2020: a / 2 (1 + cos(t pi / T_end)), and nothing from T_end on."""
    return first / 2 * (1 + cos(step * pi / until)) if step < until else 0.0


def shares(total, weights, most):
    """``total`` in proportion to ``weights``, no more than ``most`` each, by largest remainder: in exact fractions."""
    weights, full = [Fraction(w) for w in weights], set()
    while True:
        rest = total - sum(most[i] for i in full)
        factor = Fraction(rest) / sum(w for i, w in enumerate(weights) if i not in full)
        over = {i for i, w in enumerate(weights) if i not in full and factor * w > most[i]}
        if not over:
            break
        full |= over
    exact = [Fraction(most[i]) if i in full else factor * w for i, w in enumerate(weights)]
    counts = [floor(share) for share in exact]
    for i in sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))[: total - sum(counts)]:
        counts[i] += 1
    return counts


def erk(living):
    """Densities in proportion to (n_in + n_out) / (n_in n_out), so counts in proportion to n_in + n_out."""
    return shares(living, [sum(shape) for shape in SHAPES], [int(np.prod(shape)) for shape in SHAPES])


def uniform(living):
    sizes = [int(np.prod(shape)) for shape in SHAPES]
    return shares(living, sizes, sizes)


def born_with(net, counts, scores=None):
    """In each layer the highest scores, magnitudes if nothing else, as many as ``counts`` says."""
    scores = scores or [np.abs(weight) for weight in net.weights]
    layers = zip(net.masks, scores, counts, strict=True)
    return [flip(m, order(s, m, 1)[: m.size - count], False) for m, s, count in layers]


def globally(net, sparsity, grow=None):
    """One ranking for all layers: the lowest magnitudes die, or the dead with the highest ``grow`` are born."""
    change = TOTAL - round(sparsity * TOTAL) - net.size()
    among = net.masks if change < 0 else [~mask for mask in net.masks]
    scores = [np.abs(w) for w in net.weights] if change < 0 else [-s for s in grow] if change else net.weights
    places = [(scores[i].ravel()[p], i, p) for i, mask in enumerate(among) for p in np.flatnonzero(mask)]
    masks = [mask.copy() for mask in net.masks]
    for _, layer, place in sorted(places)[: abs(change)]:
        masks[layer].ravel()[place] = change > 0
    assert all(mask.any() for mask in masks)  # where one was emptied, another rule would come in
    return masks


def replace(net, masks, share, grow):
    """In each layer the weakest of the old die, and as many are born of those that were dead before all this.

    ``grow(layer)`` is asked for scores once a layer, in order, and only where something is to be replaced.
    """
    after = []
    for layer, mask in enumerate(masks):
        k, before = round(share * int(mask.sum())), net.masks[layer]
        if k:
            old, vacant, scores = mask & before, ~mask & ~before, grow(layer)
            k = min(k, int(old.sum()), int(vacant.sum()))
            kept = flip(mask, weakest(net.weights[layer], old, k), False)
            mask = flip(kept, order(scores, vacant, -1)[:k], True)
        after.append(mask)
    return after


def by_gradient(net):
    return lambda layer: np.abs(net.gradients[layer])


def at_random(seed):
    """The callback's own draws: ``torch.rand`` of a layer's shape from a CPU generator of its seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda layer: torch.rand(SHAPES[layer], generator=generator).numpy()


def static():
    draw = at_random(4)

    def update(net, step):
        return born_with(net, erk(41), [draw(layer) for layer in range(3)]) if step == 0 else None

    return Static(0.8, seed=4), update


def rigl(sparsity=0.8):
    draw = at_random(0)

    def update(net, step):
        if step == 0:
            return born_with(net, erk(TOTAL - round(sparsity * TOTAL)), [draw(layer) for layer in range(3)])
        if step % 3 or not cosine(step, 0.3, 63):
            return None
        return replace(net, net.masks, cosine(step, 0.3, 63), by_gradient(net))

    return RigL(sparsity, turnover=0.3, turnover_until=63, every=3), update


def set_():
    draw = at_random(7)

    def update(net, step):
        if step == 0:
            return born_with(net, erk(62), [draw(layer) for layer in range(3)])
        return replace(net, net.masks, 0.4, draw) if step % 3 == 0 and step < 62 else None

    return SET(0.7, turnover=0.4, turnover_until=62, every=3, seed=7), update


def snfs(living=62, turnover=0.5):
    def update(net, step):
        if step == 0:
            return born_with(net, uniform(living))  # by magnitude
        net.momentum = [0.9 * m + 0.1 * g for m, g in zip(net.momentum, net.gradients, strict=True)]
        share = cosine(step, turnover, 63)
        if step % 3 or not share:
            return None
        freed = [min(round(share * net.size(layer)), net.size(layer) - 1) for layer in range(3)]
        assert sum(freed) <= TOTAL - net.size()  # there is room for all
        kept = [flip(m, weakest(w, m, k), False) for m, w, k in zip(net.masks, net.weights, freed, strict=True)]
        pull = [float(np.abs(m[k]).mean()) for m, k in zip(net.momentum, net.masks, strict=True)]
        births = shares(sum(freed), pull, [int((~mask).sum()) for mask in net.masks])
        layers = zip(kept, net.masks, net.momentum, births, strict=True)
        return [flip(k, order(np.abs(m), ~before, -1)[:n], True) for k, before, m, n in layers]

    return SNFS(1 - living / TOTAL, turnover=turnover, turnover_until=63, every=3, birth="magnitude"), update


def granet():
    def update(net, step):
        if step == 0:
            return globally(net, 0.5)
        if (step % 2 and step != 41) or step > 41:
            return None
        pruned = globally(net, cubic(step, 0, 41, 0.5, 0.9))
        return replace(net, pruned, cosine(step, 0.5, 35) if step % 2 == 0 else 0.0, by_gradient(net))

    return GraNet(0.9, initial_sparsity=0.5, end=41, turnover=0.5, turnover_until=35, every=2), update


def acdc():
    sparse = {(begin, begin + 3) for begin in range(5, 50, 6)} | {(61, 99)}
    turns = {step for phase in sparse for step in phase}

    def update(net, step):
        if step not in turns:
            return None
        compressed = any(begin <= step < end for begin, end in sparse)
        return globally(net, 0.8) if compressed else [np.ones_like(mask) for mask in net.masks]

    return ACDC(0.8, warmup=5, phase=3, dense_from=50, sparse_from=61), update


def dsd():
    def update(net, step):
        if step == 10:
            return globally(net, 0.5)
        return [np.ones_like(mask) for mask in net.masks] if step == 25 else None

    return DenseSparseDense(0.5, sparse_from=10, dense_from=25), update


def by_torch(net, sparsity):
    """``torch.nn.utils.prune.global_unstructured`` with L1 on the same weights, its dead among them."""
    layers = [nn.Linear(*shape[::-1]) for shape in SHAPES]
    for layer, weight in zip(layers, net.weights, strict=True):
        layer.weight.data = torch.from_numpy(weight)
    prune.global_unstructured([(x, "weight") for x in layers], prune.L1Unstructured, amount=round(sparsity * TOTAL))
    return [layer.weight_mask.numpy() > 0 for layer in layers]


def one_shot():
    def update(net, step):
        return by_torch(net, 0.9) if step == 20 else None

    return OneShot(0.9, at=20), update


def gradual():
    def update(net, step):
        if step in {5 + 2 * i for i in range(1, 20)} | {44}:
            return by_torch(net, cubic(step, 5, 44, 0.0, 0.9))
        return None

    return GradualPruning(0.9, begin=5, end=44, every=2), update


def ticket():
    """Three trainings of 20 steps; after each, the share that stays is the square root of 0.1, and weights go back."""
    state = {}

    def update(net, step):
        state.setdefault("start", net.weights)
        if step not in (20, 40):
            return None
        masks = globally(net, 1 - 0.1 ** (step / 40))
        net.weights = state["start"]
        return masks

    return LotteryTicket(0.9, trainings=3, total_steps=60), update


def iterative():
    """The same staircase, from where the last training ended."""

    def update(net, step):
        return globally(net, 1 - 0.1 ** (step / 40)) if step in (20, 40) else None

    return IterativePruning(0.9, trainings=3, total_steps=60), update


def grow_and_prune():
    def update(net, step):
        if step == 0:
            return globally(net, 0.9)
        if step > 45 or step % 3:
            return None
        level = 0.4 + (0.9 - 0.4) * (1 - step / 21) if step <= 21 else cubic(step, 21, 45, 0.4, 0.8)
        return globally(net, level, [np.abs(g) for g in net.gradients])

    arguments = {"seed_sparsity": 0.9, "sparsity_at_densest": 0.4, "grown_at": 21, "pruned_by": 45}
    return GrowAndPrune(0.8, **arguments, every=3), update


def brain():
    """Growth to step 12, pruning to 40 (turnover 0.3 from 12 on), a plateau to 54 (turnover 0.2)."""

    def update(net, step):
        if step == 0:
            return globally(net, 0.7)
        if step >= 54 or step % 2:
            return None
        level = 0.3 + (0.7 - 0.3) * (1 - step / 12) if step <= 12 else cubic(step, 12, 40, 0.3, 0.9)
        share = 0.0 if step < 12 else 0.3 if step < 40 else 0.2
        return replace(net, globally(net, level, [np.abs(g) for g in net.gradients]), share, by_gradient(net))

    phases = {"densest_at": 12, "pruned_by": 40, "turnover_until": 54, "every": 2}
    shares_of = {"birth_sparsity": 0.7, "sparsity_at_densest": 0.3, "pruning_turnover": 0.3, "turnover": 0.2}
    return BrainDevelopment(0.9, **phases, **shares_of), update


# Each with the number of updates that have to have been compared in 65 steps.
METHODS = {
    "Static": (static, 1),
    "RigL": (rigl, 21),
    "RigL with a dense layer": (lambda: rigl(0.2), 21),
    "SET": (set_, 21),
    "SNFS": (snfs, 21),
    "SNFS with layers that fill up": (lambda: snfs(144, 0.35), 21),
    "GraNet": (granet, 22),
    "ACDC": (acdc, 17),
    "DenseSparseDense": (dsd, 2),
    "OneShot": (one_shot, 1),
    "GradualPruning": (gradual, 20),
    "LotteryTicket": (ticket, 2),
    "IterativePruning": (iterative, 2),
    "GrowAndPrune": (grow_and_prune, 16),
    "BrainDevelopment": (brain, 27),
}


@pytest.mark.parametrize("name", METHODS)
def test_masks_and_weights_after_every_step_are_those_of_a_rewrite(name):
    make, updates = METHODS[name]
    method, update = make()
    net = network()
    weights = [net.get_parameter(name) for name in NAMES]
    beside, left = Numpy(arrays(weights), update), []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-3)
    optimizer.register_step_pre_hook(lambda *_: setattr(beside, "gradients", arrays(w.grad for w in weights)))
    optimizer.register_step_post_hook(lambda *_: left.append(arrays(weights)))  # before the engine's, which comes later
    engine = attach(optimizer, net, method)
    for step, batch in enumerate(batches(65), 1):
        optimizer.zero_grad()
        loss_fn(net, batch).backward()
        optimizer.step()
        beside.weights = left.pop()
        beside.after_step(step)
        assert all(map(np.array_equal, arrays(engine.masks.values()), beside.masks)), f"masks after step {step}"
        assert all(map(np.array_equal, arrays(weights), beside.weights)), f"weights after step {step}"
        assert len(engine.history) == beside.updates
        if beside.updates:
            assert (engine.history[-1].died, engine.history[-1].born) == (beside.died, beside.born)
    assert beside.updates == updates
