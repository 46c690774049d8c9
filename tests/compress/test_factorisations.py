"""Each factorisation against what mathematics or another implementation says of the same weight."""

import math

import pytest
import tensorly
import tltorch
import torch
from tensorly.decomposition import tensor_train_matrix
from torch import nn

from lightning_sparse.compress.factorisation import cp, svd, tensor_train, tucker


def exact(*shape, terms):
    """A tensor that is a sum of so many products of vectors."""
    random = torch.Generator().manual_seed(3)
    parts = [torch.randn(size, terms, generator=random, dtype=torch.float64) for size in shape]
    letters = "abcdef"[: len(shape)]
    return torch.einsum(",".join(f"{letter}z" for letter in letters) + f"->{letters}", *parts)


def product(layer, kind, ranks, modes=(), *, weight=None):
    """The weight that the factors of a layer stand for: what the built layers make of an impulse at each input."""
    weight = layer.weight.detach().double() if weight is None else weight
    built = kind.build(layer.double(), ranks, modes).double()
    with torch.no_grad():
        for parameter, value in zip(
            [p for name, p in built.named_parameters() if "bias" not in name],
            kind.decompose(weight, ranks, modes),
            strict=True,
        ):
            assert parameter.shape == value.shape
            parameter.copy_(value)
        if isinstance(layer, nn.Linear):
            return (built(torch.eye(layer.in_features, dtype=torch.float64)) - layer.bias).T
        # An impulse in the middle of a map of twice the kernel shows the kernel back to front.
        sizes = layer.kernel_size
        maps = torch.zeros(layer.in_channels, layer.in_channels, *(2 * size - 1 for size in sizes), dtype=torch.float64)
        middle = tuple(size - 1 for size in sizes)
        for channel in range(layer.in_channels):
            maps[(channel, channel, *middle)] = 1
        seen = built(maps) - layer.bias.reshape(-1, *[1] * len(sizes))
        return seen.transpose(0, 1).flip(tuple(range(2, 2 + len(sizes))))


def test_the_error_of_a_cut_off_svd_is_the_sum_of_the_squares_that_were_dropped():
    torch.manual_seed(0)
    for layer in (nn.Linear(12, 7), nn.Conv1d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Conv3d(2, 5, 2)):
        values = torch.linalg.svdvals(layer.weight.detach().double().flatten(1))
        for rank in (1, 3, 5):
            found = product(layer, svd, (rank,))
            error = (found - layer.weight.detach()).square().sum()
            assert error.item() == pytest.approx(values[rank:].square().sum().item(), rel=1e-6, abs=1e-12)


def test_both_factors_of_an_svd_carry_as_much():
    torch.manual_seed(0)
    first, second = svd.decompose(torch.randn(9, 6, dtype=torch.float64), (4,))
    assert torch.allclose(first.norm(dim=1), second.norm(dim=0))


@pytest.mark.parametrize("kernel", [(3, 3), (3, 5), (5, 1)])
def test_tucker_of_a_weight_of_low_rank_is_exact(kernel):
    layer = nn.Conv2d(12, 16, kernel)
    weight = exact(16, 12, *kernel, terms=3)
    found = product(layer, tucker, (3, 3), weight=weight)
    assert (found - weight).norm() < 1e-4 * weight.norm()


def test_tucker_of_all_channels_is_exact_for_any_weight():
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 10, 3)
    assert torch.allclose(product(layer, tucker, (10, 6)), layer.weight.detach(), atol=1e-6)


@pytest.mark.parametrize("kernel", [(3, 3), (3, 5), (5, 1)])
@pytest.mark.parametrize("terms", [1, 3, 5])
def test_cp_of_a_weight_of_low_rank_is_exact(kernel, terms):
    layer = nn.Conv2d(12, 16, kernel)
    weight = exact(16, 12, *kernel, terms=terms)
    found = product(layer, cp, (terms,), weight=weight)
    assert (found - weight).norm() < 1e-4 * weight.norm()


def test_cp_of_many_channels_takes_no_square_matrix_of_all_but_one_dimension():
    """Which of 128 * 128 * 3 rows would be 19 GB; a rank above the kernel's 3 is what has asked for such."""
    torch.manual_seed(0)
    weight = torch.einsum("or,ir,hr,wr->oihw", *(torch.randn(n, 4) for n in (128, 128, 3, 3)))
    found = cp.decompose(weight, (4,))
    assert [tuple(part.shape) for part in found] == [(4, 128, 1, 1), (4, 1, 3, 1), (4, 1, 1, 3), (128, 4, 1, 1)]


def test_cp_of_zeros_is_zero():
    assert not any(part.any() for part in cp.decompose(torch.zeros(4, 3, 3, 3), (2,)))


def test_the_terms_of_cp_are_shared_evenly():
    torch.manual_seed(0)
    into, height, width, out = cp.decompose(torch.randn(8, 6, 3, 3, dtype=torch.float64), (5,))
    lengths = [part.flatten(1).norm(dim=1) for part in (into, height, width)] + [out.flatten(1).norm(dim=0)]
    for length in lengths[1:]:
        assert torch.allclose(length, lengths[0])


def test_a_tensor_train_of_full_rank_is_exact_for_any_weight():
    torch.manual_seed(0)
    layer = nn.Linear(24, 18)
    modes = tensor_train.modes(layer)
    full = tensor_train.ranks(layer, lambda most: most)
    assert modes == ((2, 3, 3), (2, 3, 4))
    assert full == (4, 12)
    assert torch.allclose(product(layer, tensor_train, full, modes), layer.weight.detach(), atol=1e-6)


def test_a_tensor_train_of_a_train_is_exact():
    torch.manual_seed(0)
    layer, modes = nn.Linear(24, 18), ((2, 3, 3), (2, 3, 4))
    first, second, third = (
        torch.randn(shape, dtype=torch.float64) for shape in ((1, 2, 2, 2), (2, 3, 3, 2), (2, 3, 4, 1))
    )
    weight = torch.einsum("aoib,bpjc,cqkd->opqijk", first, second, third).reshape(18, 24)
    assert torch.allclose(product(layer, tensor_train, (2, 2), modes, weight=weight), weight, atol=1e-8)


def test_a_tensor_train_is_that_of_tensorly():
    torch.manual_seed(0)
    weight = torch.randn(18, 24, dtype=torch.float64)
    with tensorly.backend_context("pytorch"):
        theirs = tensor_train_matrix(weight.reshape(2, 3, 3, 2, 3, 4), (1, 3, 3, 1)).to_matrix()
    layer = nn.Linear(24, 18)
    ours = product(layer, tensor_train, (3, 3), ((2, 3, 3), (2, 3, 4)), weight=weight)
    assert torch.allclose(ours, theirs, atol=1e-8)


@pytest.mark.parametrize(
    ("layer", "kind", "ranks", "modes", "by_hand"),
    [
        (nn.Linear(784, 300), svd, (10,), (), 784 * 10 + 10 * 300),
        (nn.Conv2d(3, 8, 5), svd, (4,), (), 3 * 25 * 4 + 4 * 8),
        (nn.Conv2d(16, 32, 3), tucker, (8, 4), (), 16 * 4 + 4 * 8 * 9 + 8 * 32),
        (nn.Conv2d(16, 32, (3, 5)), cp, (6,), (), 6 * (16 + 3 + 5 + 32)),
        (nn.Linear(784, 300), tensor_train, (4, 8), ((3, 10, 10), (4, 7, 28)), 12 * 4 + 4 * 70 * 8 + 8 * 280),
    ],
)
def test_numbers_are_counted_as_by_hand_and_as_built(layer, kind, ranks, modes, by_hand):
    built = kind.build(layer, ranks, modes)
    weights = [p.numel() for name, p in built.named_parameters() if not name.endswith("bias")]
    assert kind.numbers(layer, ranks, modes) == by_hand == sum(weights)


@pytest.mark.parametrize("number", [4, 10, 30, 97, 100, 120, 784, 1000, 2 * 499, 4096])
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_numbers_are_split_as_evenly_as_can_be(number, parts):
    divisors = [d for d in range(2, number + 1) if number % d == 0]

    def all_ways(rest, left, least):
        if left == 1:
            return [(rest,)] if rest >= least else []
        return [(d, *w) for d in divisors if d >= least and rest % d == 0 for w in all_ways(rest // d, left - 1, d)]

    ways = all_ways(number, parts, 2)
    found = tensor_train.split(number, parts)
    assert bool(ways) == bool(found)
    if ways:
        assert math.prod(found) == number
        assert found[-1] == min(way[-1] for way in ways)


def test_tltorch_splits_on_its_own_unless_told():
    """Of given shapes its from_linear says that `auto_reshape`, which does not exist, is to be used: why it is not called."""
    with pytest.raises(ValueError, match="auto_reshape"):
        tltorch.FactorizedLinear.from_linear(
            nn.Linear(16, 10), in_tensorized_features=(4, 4), out_tensorized_features=(2, 5), factorization="blocktt"
        )


def test_tltorch_takes_a_grouped_convolution_and_fails_later():
    """Why convolutions in groups are left alone, and no convolution is tltorch's."""
    layer = nn.Conv2d(8, 8, 3, groups=4)
    made = tltorch.FactorizedConv.from_conv(layer, rank=2, factorization="cp")
    with pytest.raises((RuntimeError, ValueError)):
        made(torch.rand(1, 8, 6, 6))
