from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse.anatomy.dead_units import cut_off_warnings, dead_units


def boolean(rows):
    return torch.tensor(rows).bool()


def found(dead):
    return {name: units.nonzero().flatten().tolist() for name, units in dead.items()}


MLP = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(3, 2))
CHAIN = [("0.weight", "1.weight", "2.weight")]


def test_units_without_incoming_connections():
    masks = {"0.weight": boolean([[1, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 0]]), "2.weight": boolean([[0] * 3, [1] * 3])}
    assert found(dead_units(MLP, masks)) == {"0.weight": [1, 3], "2.weight": [0]}


def test_units_on_no_path():
    masks = {
        "0.weight": boolean([[1, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 1]]),  # 1 has no input
        # 0 reads only the dead 1; no unit reads the previous layer's 3
        "1.weight": boolean([[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0]]),
        # 1 reads only the dead 0; no unit reads the previous layer's 2
        "2.weight": boolean([[1, 1, 0], [1, 0, 0]]),
    }
    before = {name: mask.clone() for name, mask in masks.items()}
    assert found(dead_units(MLP, masks, CHAIN)) == {"0.weight": [1, 3], "1.weight": [0, 2], "2.weight": [1]}
    assert all(torch.equal(before[name], mask) for name, mask in masks.items())
    # A dense layer of the chain has units too, and they may read from dead units only.
    masks["1.weight"][:] = False
    masks["1.weight"][0, 1] = True
    del masks["2.weight"]
    assert found(dead_units(MLP, masks, CHAIN)) == {"0.weight": [0, 1, 2, 3], "1.weight": [0, 1, 2], "2.weight": [0, 1]}


@pytest.mark.parametrize("seed", range(20))
def test_alive_is_what_lies_on_a_path_from_end_to_end(seed):
    """A unit is alive if a path leads through it; products of matrices count the paths."""
    generator = np.random.default_rng(seed)
    sizes = (6, 9, 12, 8, 5)
    net = nn.Sequential(*[nn.Linear(*pair) for pair in pairwise(sizes)])
    masks = [generator.random((out, into)) < 0.12 for into, out in pairwise(sizes)]
    names = [f"{number}.weight" for number in range(4)]
    dead = dead_units(net, {n: torch.tensor(m) for n, m in zip(names, masks, strict=True)}, [names])
    for number, name in enumerate(names):
        to, onwards = np.ones(sizes[0]), np.ones(sizes[-1])
        for mask in masks[: number + 1]:
            to = mask.astype(float) @ to
        for mask in reversed(masks[number + 1 :]):
            onwards = mask.T.astype(float) @ onwards
        assert dead[name].tolist() == (to * onwards == 0).tolist()


def gradient_says_dead(net, chain, inputs):
    """Which units of a linear network with positive weights no input changes, or which change no output."""
    seen = {}
    handles = [
        net.get_submodule(name.rpartition(".")[0]).register_forward_hook(
            lambda module, args, output, name=name: (output.retain_grad(), seen.update({name: output}))[0]
        )
        for name in chain
    ]
    net(inputs).sum().backward()
    for handle in handles:
        handle.remove()
    dead = {}
    for name, output in seen.items():
        others = [dimension for dimension in range(output.dim()) if dimension != 1]
        dead[name] = ((output.abs().sum(others) == 0) | (output.grad.abs().sum(others) == 0)).detach()
    return dead


CONVOLUTIONS = {
    "flattened": (nn.Conv2d(2, 4, 3, bias=False), nn.Flatten(), nn.Linear(4 * 36, 5, bias=False)),
    "pooled": (nn.Conv2d(2, 6, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5, bias=False)),
    "grouped": (
        nn.Conv2d(2, 8, 3, bias=False),
        nn.Conv2d(8, 12, 3, groups=4, bias=False),
        nn.Conv2d(12, 3, 1, bias=False),
    ),
    "depthwise": (
        nn.Conv2d(2, 8, 1, bias=False),
        nn.Conv2d(8, 8, 3, groups=8, bias=False),
        nn.Conv2d(8, 3, 1, bias=False),
    ),
    "transposed": (
        nn.Conv2d(2, 6, 1, bias=False),
        nn.ConvTranspose2d(6, 9, 2, groups=3, bias=False),
        nn.Conv2d(9, 4, 1, bias=False),
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_against_what_flows_through_them(name):
    net = nn.Sequential(*CONVOLUTIONS[name])
    chain = [weight for weight, _ in net.named_parameters()]
    mixed = 0
    for seed in range(20):
        torch.manual_seed(seed)
        masks = {}
        for weight, parameter in net.named_parameters():
            masks[weight] = torch.rand_like(parameter) < 1.5 / parameter[0].numel() ** 0.9
            parameter.data = masks[weight].float()
        expected = gradient_says_dead(net, chain, torch.rand(2, 2, 8, 8) + 0.1)
        dead = dead_units(net, masks, [chain])
        assert {weight: units.tolist() for weight, units in dead.items()} == {
            w: u.tolist() for w, u in expected.items()
        }
        mixed += any(units.any() and not units.all() for units in expected.values())
    assert mixed >= 3


def test_parameters_of_one_dimension_have_no_units():
    assert dead_units(MLP, {"0.bias": torch.zeros(4, dtype=torch.bool)}) == {}


def test_what_a_user_is_told():
    cut = boolean([1, 1])
    some = boolean([0, 1, 0])
    messages = cut_off_warnings(
        {"a": cut, "b": some, "head": some, "fine": boolean([0, 0])}, outputs=["head", "fine", "elsewhere"]
    )
    assert set(messages) == {"a", "head"}
    assert "nothing flows through 'a'" in messages["a"]
    assert "1 of the 3 outputs of 'head'" in messages["head"]
    assert "(units 1)" in messages["head"]
    many = cut_off_warnings({"head": boolean([1] * 30 + [0])}, outputs=["head"])
    assert "(units 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...)" in many["head"]
