"""What the gradients of dead weights may do to the living: nothing, under any optimizer."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear

import settings
from lightning_sparse import RigL, Static, attach
from lightning_sparse.engine.hooks import ELEMENTWISE, is_elementwise

pytorch_optimizer = pytest.importorskip("pytorch_optimizer")
timm_optim = pytest.importorskip("timm.optim")

RATES = {torch.optim.Adadelta: 1.0, torch.optim.RMSprop: 1e-3, torch.optim.Rprop: 1e-3}
MIXING = {
    "Muon": lambda p: torch.optim.Muon(p, lr=0.02),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.1),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.3, max_iter=4),
    "SOAP": lambda p: pytorch_optimizer.SOAP(p, lr=1e-2),
    "Shampoo": lambda p: pytorch_optimizer.ScalableShampoo(p, lr=1e-2),
    "LAMB": lambda p: timm_optim.Lamb(p, lr=1e-2),
    "LARS": lambda p: timm_optim.Lars(p, lr=1.0),
    "Adam with clipping inside": lambda p: ClippedAdam(p, lr=1e-2),
}


class ClippedAdam(torch.optim.Adam):
    def step(self, closure=None):
        torch.nn.utils.clip_grad_norm_([w for group in self.param_groups for w in group["params"]], 0.1)
        return super().step(closure)


class Living(nn.Module):
    """A network whose dead weights do not exist: what lives is one vector, scattered into zeros."""

    def __init__(self, net, masks):
        super().__init__()
        self.masks = [masks["0.weight"], masks["2.weight"]]
        weights = [net[0].weight, net[2].weight]
        self.vectors = nn.ParameterList([w.detach()[m].clone() for w, m in zip(weights, self.masks, strict=True)])

    def forward(self, x):
        first, second = [
            torch.zeros(mask.shape).masked_scatter(mask, vector)
            for mask, vector in zip(self.masks, self.vectors, strict=True)
        ]
        return linear(linear(x, first).relu(), second)


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 24, bias=False), nn.ReLU(), nn.Linear(24, 10, bias=False))


def train(net, optimizer, steps=25, before=lambda: None):
    features, labels = settings.digits()[:]
    losses = []

    def evaluate():
        optimizer.zero_grad()
        loss = cross_entropy(net(features), labels)
        loss.backward()
        before()
        losses.append(loss.item())
        return loss

    for _ in range(steps):
        optimizer.step(evaluate)
    return losses


@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda kind: kind.__name__)
def test_of_torchs_elementwise_optimizers_each_equals_a_network_without_the_dead_weights(kind):
    net = make_net()
    optimizer = kind(net.parameters(), lr=RATES.get(kind, 1e-2))
    alone = Living(net, attach(optimizer, net, Static(0.8)).masks)
    assert is_elementwise(optimizer)
    train(net, optimizer)
    losses = train(alone, kind(alone.parameters(), lr=RATES.get(kind, 1e-2)))
    assert losses[-1] < losses[0]
    for weight, mask, vector in zip([net[0].weight, net[2].weight], alone.masks, alone.vectors, strict=True):
        assert torch.allclose(weight[mask], vector, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MIXING)
def test_other_optimizers_never_see_the_gradients_of_the_dead(name):
    """Equal, bit for bit, to gradients and weights that are zeroed by hand before and after every step."""
    net = make_net()
    by_hand = copy.deepcopy(net)
    optimizer = MIXING[name](net.parameters())
    engine = attach(optimizer, net, Static(0.8, allocation="uniform"))
    by_hand.load_state_dict(net.state_dict())
    assert not is_elementwise(optimizer)

    def hide():
        for key, mask in engine.masks.items():
            by_hand.get_parameter(key).grad[~mask] = 0.0

    losses = train(net, optimizer)

    other = MIXING[name](by_hand.parameters())
    with torch.no_grad():
        for _ in range(25):
            with torch.enable_grad():
                train(by_hand, other, 1, hide)
            for key, mask in engine.masks.items():
                by_hand.get_parameter(key)[~mask] = 0.0
    for key, mask in engine.masks.items():
        assert torch.equal(net.get_parameter(key)[mask], by_hand.get_parameter(key)[mask])
    assert losses[-1] < losses[0]


def test_hidden_gradients_are_read_before_by_a_method_that_grows_by_them():
    """RigL under Muon grows the same connections as a ranking by hand of the gradients that a plain backward gives."""
    net = make_net()
    optimizer = torch.optim.Muon(net.parameters(), lr=0.0, weight_decay=0.0)
    engine = attach(optimizer, net, RigL(0.8, every=1, turnover=0.3), total_steps=10)
    before = {name: mask.clone() for name, mask in engine.masks.items()}
    features, labels = settings.digits()[:]
    gradients = torch.autograd.grad(cross_entropy(net(features), labels), list(net.parameters()))
    train(net, optimizer, 1)
    for (name, mask), gradient in zip(before.items(), gradients, strict=True):
        born = engine.masks[name] & ~mask
        assert born.any()
        assert gradient[born].abs().min() >= gradient[~mask & ~born].abs().max() - 1e-6
